"""GET /v1/models and /v1/models/{id}: the names that a key may use, aliases included."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from ..admission.key_records import Caller
from ..catalog import ServedModel
from ..client.request_headers import bearer_key
from ..client.sink import send_json
from ..errors import ModelNotFound
from ..proxy.placing.context_lengths import ContextLengths
from ..record import SCOPE_KEY, RequestRecord
from .services import Services

_PATIENCE_S = 0.5  # for an engine that is asked what it states of a model


class ModelsEndpoint:
    def __init__(self, services: Services, lengths: ContextLengths) -> None:
        self._services = services
        self._lengths = lengths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope[SCOPE_KEY]
        record.route = "models"
        caller = await self._services.admission.authenticate(bearer_key(scope))
        record.tenant, record.key_id, record.limits = caller.tenant, caller.key_id, caller.limits
        wanted: str | None = scope["path_params"].get("model")
        answer = await (self._list(caller) if wanted is None else self._one(caller, wanted))
        await send_json(send, orjson.dumps(answer))

    async def _list(self, caller: Caller) -> dict[str, Any]:
        found = [(name, model) for name, model in self._services.catalog if caller.may_use(model.names)]
        entries = await asyncio.gather(*(self._entry(name, model) for name, model in found))
        return {"object": "list", "data": entries}

    async def _one(self, caller: Caller, name: str) -> dict[str, Any]:
        model = self._services.catalog.find(name)
        if model is None:
            raise self._services.catalog.missing(name)
        if not caller.may_use(model.names):
            raise ModelNotFound(name)
        return await self._entry(name, model)

    async def _entry(self, name: str, model: ServedModel) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": model.created,
            "owned_by": "cloudach",
            "root": model.id,
        }
        if model.parent is not None:
            entry["parent"] = model.parent
        length = await self._lengths.of(model, patience_s=_PATIENCE_S)
        if length is not None:
            entry["max_model_len"] = length
        return entry
