"""A look at a Model needs two Secrets with tokens of Ray: the Model's own, and the one that older clusters share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudach_kube.errors import KubeError
from cloudach_model_api.model import Model

from ..key import Key
from ..resources.ray_tokens import secrets_used
from ..settings import Ray
from .own_tokens import OwnTokens
from .ray_token import RayToken

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RayTokens:
    shared: RayToken
    own: OwnTokens
    settings: Ray

    async def secret_for_new_cluster(self, model: Model) -> str:
        """Returns an empty text if the cluster gets the token that the namespace shares. Raises KubeError."""
        token = await self.own.for_new_cluster(model)
        return token.secret if token is not None else ""

    async def make(
        self, model: Model, ray_service: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], *, first: bool
    ) -> None:
        """Is called before the RayService is applied, which needs the Secrets. `first` means that there was no
        RayService. Raises KubeError.
        """
        await self._keep(model, ray_service, pods, first=first, for_new_pods=True)

    async def keep(self, model: Model, ray_service: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> None:
        """Makes Secrets again that somebody has deleted. What runs goes on without them, so nothing waits. Raises
        nothing.
        """
        try:
            await self._keep(model, ray_service, pods, first=False, for_new_pods=False)
        except KubeError as error:
            extra = {"model": f"{model.metadata.namespace}/{model.metadata.name}", "error": str(error)}
            log.warning("Ray's token could not be made again", extra=extra)

    def forget(self, key: Key) -> None:
        self.own.forget(key)

    async def _keep(
        self,
        model: Model,
        ray_service: Mapping[str, Any],
        pods: Iterable[Mapping[str, Any]],
        *,
        first: bool,
        for_new_pods: bool,
    ) -> None:
        used = secrets_used(ray_service)
        if self.settings.token_secret in used:
            await self.shared.keep(model.metadata.namespace, for_new_pods=first)
        if used - {self.settings.token_secret}:
            token = await self.own.of(model)
            if token is not None and token.secret in used:
                await self.own.keep(model, token, pods, for_new_pods=for_new_pods)
