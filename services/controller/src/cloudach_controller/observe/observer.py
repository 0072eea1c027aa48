"""The observer looks at a Model's RayService, pods and replicas."""

from __future__ import annotations

import base64
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from cloudach_kube.errors import KubeError
from cloudach_kube.kinds import SECRETS, Kind
from cloudach_model_api.model import Model
from cloudach_service.settings import header_text

from ..decide.engine_log import last_error
from ..decide.observation import Head, Observation, Replicas, active_head, cluster_of, pods_that_count, read_replicas
from ..resources import engine
from ..resources.ray_service import serve_document
from ..resources.ray_tokens import SEED_SECRET, OwnToken
from ..settings import Settings
from .dashboard import Dashboard, Unanswered, Unauthorized

log = logging.getLogger(__name__)

_LOG_LINES = 200

T = TypeVar("T")


class Api(Protocol):
    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]: ...
    async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str: ...


class Tokens(Protocol):
    async def of(self, model: Model) -> OwnToken | None:
        """Returns the Model's own Ray token; None if it has none. Raises KubeError."""
        ...


class Observer:
    def __init__(self, api: Api, dashboard: Dashboard, own_tokens: Tokens, settings: Settings) -> None:
        self._api = api
        self._own_tokens = own_tokens
        self._dashboard = dashboard
        self._settings = settings
        self._tokens: dict[tuple[str, str], str] = {}  # by namespace and Secret, until a dashboard wants another

    async def observe(
        self,
        model: Model,
        ray_service: dict[str, Any] | None,
        pods: Iterable[dict[str, Any]],
        *,
        kuberay_missing: bool = False,
        refused: str = "",
        vanished: bool = False,
    ) -> Observation:
        """Returns what can be seen of the Model now. Raises nothing, because the observation says what cannot
        be seen.
        """
        all_pods = tuple(pods)
        pods = pods_that_count(ray_service, all_pods)
        replicas, unreachable = None, ""
        head = active_head(ray_service, all_pods)
        if head is not None:
            try:
                replicas = await self._replicas(model, head)
            except (Unanswered, KubeError) as error:
                unreachable = str(error)
        crashed_in, engine_log = await self._crash_log(pods)
        return Observation(
            ray_service=ray_service,
            pods=pods,
            replicas=replicas,
            unreachable=unreachable,
            engine_log=engine_log,
            crashed_in=crashed_in,
            kuberay_missing=kuberay_missing,
            refused=refused,
            vanished=vanished,
        )

    async def _replicas(self, model: Model, head: Head) -> Replicas:
        url = self._url(model, head)
        answer = await self._with_token(model, head, lambda token: self._dashboard.applications(url, token))
        return read_replicas(answer, engine.deployment(model))

    async def replicas_of(self, model: Model, head: Head) -> Replicas | None:
        """Returns the replicas of any of the Model's RayClusters; None if its dashboard cannot be asked."""
        if not self._tells_clusters_apart:
            return None
        try:
            return await self._replicas(model, head)
        except (Unanswered, KubeError):
            return None

    async def tell(self, model: Model, head: Head, app: Mapping[str, Any]) -> str:
        """Gives the Serve of this RayCluster its application. Returns why that failed; empty if it did not.

        Only the address of this one cluster is used: an application that reached another one would replace its engines.
        """
        if not self._tells_clusters_apart:
            return "ray.dashboard_url leads to a Model, and not to one of its clusters"
        url, document = self._url(model, head), serve_document(app)
        try:
            await self._with_token(model, head, lambda token: self._dashboard.configure(url, token, document))
        except (Unanswered, KubeError) as error:
            return str(error)
        return ""

    @property
    def _tells_clusters_apart(self) -> bool:
        return any(name in self._settings.ray.dashboard_url for name in ("{head}", "{cluster}"))

    def _url(self, model: Model, head: Head) -> str:
        return self._settings.ray.dashboard_url.format(
            name=model.metadata.name, namespace=model.metadata.namespace, cluster=head.cluster, head=head.service
        )

    async def _with_token(self, model: Model, head: Head, ask: Callable[[str | None], Awaitable[T]]) -> T:
        """Sends a head its own token only, because whoever controls the head would learn any other."""
        if not self._settings.ray.token_auth:
            return await ask(None)
        shared = self._settings.ray.token_secret
        if head.token_secret not in ("", shared):
            own = await self._own_tokens.of(model)
            if own is None or own.secret != head.token_secret:
                raise Unanswered(
                    f"{head.cluster} wants the token in the Secret {head.token_secret}, which the controller cannot "
                    f"make: the Secret {SEED_SECRET} has another seed now, or cannot be read"
                )
            return await ask(own.value)
        secret = model.metadata.namespace, shared
        known = self._tokens.get(secret)
        if known is not None:
            try:
                return await ask(known)
            except Unauthorized:
                self._tokens.pop(secret, None)
        token = self._tokens[secret] = await self._read_token(*secret)
        return await ask(token)

    async def _read_token(self, namespace: str, name: str) -> str:
        secret = await self._api.get(SECRETS, namespace, name)
        try:
            return header_text(base64.b64decode((secret.get("data") or {}).get("auth_token", "")).decode())
        except ValueError as error:  # neither base64 nor UTF-8, or nothing for a header
            raise Unanswered(f"auth_token in the Secret {name} cannot be sent: {error}") from error

    async def _crash_log(self, pods: tuple[Mapping[str, Any], ...]) -> tuple[str, str]:
        """Returns the cluster and the last exception of the first container that ended with an error."""
        for pod in pods:
            for container in (pod.get("status") or {}).get("containerStatuses") or []:
                ended = (container.get("lastState") or {}).get("terminated") or {}
                if (container.get("state") or {}).get("waiting", {}).get("reason") != "CrashLoopBackOff" or not ended:
                    continue
                meta = pod["metadata"]
                try:
                    text = await self._api.log(
                        meta["namespace"], meta["name"], container["name"], lines=_LOG_LINES, previous=True
                    )
                except KubeError as error:
                    log.info(
                        "the log of a crashed container could not be read",
                        extra={"pod": meta["name"], "error": str(error)},
                    )
                    continue
                return cluster_of(pod), last_error(text)
        return "", ""
