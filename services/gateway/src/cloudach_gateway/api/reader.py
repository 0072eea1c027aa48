"""Turns a request's body into the engine's, and refuses a bad request before its key's limits are checked."""

from __future__ import annotations

import codecs
import hashlib
from typing import NamedTuple

from openai_wire.json_values import values_in
from openai_wire.requests import BadField
from starlette.types import Receive, Scope

from ..admission import not_allowed
from ..admission.api_keys import PresentedKey
from ..catalog import ServedModel
from ..client.request_headers import require_json
from ..errors import GatewayError, InvalidRequest, RequestTooLarge
from .endpoint import Asked, Endpoint, ToEngine
from .failover_wish import FailoverWish, failover_wish
from .services import Services


class Order(NamedTuple):
    """A request that may be admitted. size: its body's bytes. fingerprint: by it a retry is recognised. names: those of
    its model, first the one that the client uses."""

    asked: Asked
    model: ServedModel
    to_engine: ToEngine
    wish: FailoverWish
    size: int
    fingerprint: str
    names: tuple[str, ...]


class Reader:
    """Reads the requests of one endpoint."""

    def __init__(self, services: Services, endpoint: Endpoint) -> None:
        self._services = services
        self._endpoint = endpoint

    async def read(self, scope: Scope, receive: Receive, key: str, presented: PresentedKey) -> Order:
        """Raises GatewayError, ClientGone."""
        services = self._services
        if not (services.intake.is_ordinary(scope) or services.admission.knows(presented)):
            await services.admission.authenticate(key)
        asked: Asked | None = None
        try:
            body = await services.intake.read(scope, receive, presented)
            require_json(scope)
            wish = failover_wish(scope)
            parsed = await services.intake.worked(len(body), self._parsed, body)
            asked, fingerprint = parsed
            model = self._model(asked)
            to_engine = await services.intake.worked(len(body), self._checked, asked, model, presented)
        except GatewayError as error:
            # Who asks comes before what is asked: without a good key nothing is said about the request.
            caller = await services.admission.authenticate(key)
            error.limits = caller.limits
            if asked is not None and not caller.may_use(self._names(asked)):  # nor about another's model
                other = not_allowed(asked.model)
                other.limits = caller.limits
                raise other from None
            raise
        return Order(asked, model, to_engine, wish, len(body), fingerprint, self._names(asked))

    async def reread(self, order: Order, model: ServedModel) -> ToEngine:
        """Returns the engine's request anew, because a woken model may be known by another name to its engines."""
        if model.upstream_model == order.model.upstream_model:
            return order.to_engine
        return await self._services.intake.worked(order.size, to_engine, order.asked, model)

    def _parsed(self, body: bytes) -> tuple[Asked, str]:
        """Returns the request and its fingerprint. Raises InvalidRequest, RequestTooLarge."""
        most = self._services.settings.bodies.max_values
        if values_in(body, most=most) > most:
            raise RequestTooLarge(f"The request body holds more than {most} JSON values and names.")
        body = body.removeprefix(codecs.BOM_UTF8)
        try:
            asked = self._endpoint.asked(body)
        except BadField as bad:
            raise InvalidRequest(bad.message, param=bad.param, code=bad.code) from bad
        return asked, hashlib.blake2b(body, digest_size=12).hexdigest()

    def _names(self, asked: Asked) -> tuple[str, ...]:
        model = self._services.catalog.find(asked.model)
        if model is None:
            return (asked.model,)
        return model.names if asked.model == model.id else (asked.model, *model.names)

    def _model(self, asked: Asked) -> ServedModel:
        """Raises ModelNotFound, ModelNotReady."""
        model = self._services.catalog.find(asked.model)
        if model is None:
            raise self._services.catalog.missing(asked.model)
        waking = self._services.waking
        if model.absence is not None and waking is not None and not waking.can_wait(model):
            raise waking.cluster.not_ready(model)
        return model

    def _checked(self, asked: Asked, model: ServedModel, key: PresentedKey) -> ToEngine:
        """Raises InvalidRequest for what callers of this model may not ask for, Overloaded."""
        try:
            asked.check(model, self._services.settings)
        except BadField as bad:
            raise InvalidRequest(bad.message, param=bad.param, code=bad.code) from bad
        wanted = asked.fields.get("cache_salt")
        salt = self._services.salts.of(model.rules.cache_salt, key, wanted if isinstance(wanted, str) else None)
        if salt is not None:
            asked.fields["cache_salt"] = salt
        return to_engine(asked, model)


def to_engine(asked: Asked, model: ServedModel) -> ToEngine:
    """Raises InvalidRequest for what cannot be passed on."""
    try:
        return asked.to_engine(model)
    except BadField as bad:
        raise InvalidRequest(bad.message, param=bad.param, code=bad.code) from bad
