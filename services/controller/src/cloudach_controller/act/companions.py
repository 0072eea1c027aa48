"""Companions stand beside a Model's RayService: its ModelUse, its network policies, and its disruption budget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudach_kube.client import KubeClient
from cloudach_kube.errors import Conflict, KubeError, NotFound, Refused, is_refusal
from cloudach_kube.kinds import DISRUPTION_BUDGETS, NETWORK_POLICIES, Kind
from cloudach_model_api.model import Model
from cloudach_model_api.use import ModelUse, use_object

from ..decide.belonging import belongs, whose
from ..decide.drift import covers
from ..decide.replicas import may_sleep
from ..key import Key
from ..kinds import MODEL_USES
from ..resources import network
from ..resources.disruption import budget_name
from ..settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Companions:
    """`uses`, `policies` and `budgets` are as the informers hold them. All methods raise KubeError."""

    api: KubeClient
    settings: Settings
    uses: Mapping[Key, dict[str, Any]]
    uses_missing: Callable[[str], bool]
    """It tells if the API server does not know the kind, or does not let us see it in this namespace."""
    policies: Mapping[Key, dict[str, Any]]
    budgets: Mapping[Key, dict[str, Any]]
    budgets_missing: Callable[[str], bool]
    """It tells this of disruption budgets."""

    def use(self, key: Key, model: Model) -> ModelUse | None:
        """Returns what gateways have told of this Model; not what they told of an earlier Model of the same name."""
        obj = self.uses.get(key)
        if obj is None:
            return None
        owners = obj["metadata"].get("ownerReferences") or ()
        return ModelUse.from_object(obj) if any(one.get("uid") == model.metadata.uid for one in owners) else None

    async def keep_use(self, key: Key, model: Model) -> None:
        """Makes the ModelUse that gateways write to, where a Model that may sleep lacks it."""
        if not may_sleep(model) or self.uses_missing(key[0]) or self.use(key, model) is not None:
            return
        try:
            await self.api.create(MODEL_USES, key[0], use_object(model))
        except (Conflict, NotFound):
            pass  # It exists, an earlier Model's is still being deleted, or the kind has just been removed.
        except KubeError as error:  # the Model is not put to sleep, and all else goes on
            if not is_refusal(error):
                raise
            log.warning("no ModelUse could be made", extra={"model": "/".join(key), "error": str(error)})

    async def protect(self, key: Key, model: Model) -> str:
        """Creates, changes and deletes the Model's network policies. Returns the API server's words if it
        refused one.
        """
        namespace = key[0]
        wanted = {one["metadata"]["name"]: one for one in network.policies(model, self.settings)}
        try:
            for name in network.names(model):
                there = self.policies.get((namespace, name))
                if name in wanted and not _same(there, wanted[name]):
                    await self._apply(NETWORK_POLICIES, namespace, model, there, wanted[name])
                elif name not in wanted and there is not None and belongs(there, _meta(model)):
                    await self.api.delete(NETWORK_POLICIES, namespace, name)
        except NotFound:
            pass  # somebody was faster
        except KubeError as error:
            if not is_refusal(error):
                raise
            return str(error)
        return ""

    async def keep_budget(self, key: Key, model: Model, wanted: dict[str, Any] | None) -> None:
        """Creates, changes or deletes the disruption budget. Where the right or the kind is missing, pods are evicted
        without a budget.
        """
        namespace, name = key[0], budget_name(model)
        if self.budgets_missing(namespace):
            return
        there = self.budgets.get((namespace, name))
        try:
            if wanted is None and there is not None and belongs(there, _meta(model)):
                await self.api.delete(DISRUPTION_BUDGETS, namespace, name)
            elif wanted is not None and not _same(there, wanted):
                await self._apply(DISRUPTION_BUDGETS, namespace, model, there, wanted)
        except NotFound:
            pass  # somebody was faster
        except KubeError as error:
            if not is_refusal(error):
                raise
            log.warning(
                "the disruption budget could not be written", extra={"model": "/".join(key), "error": str(error)}
            )

    async def _apply(
        self, kind: Kind, namespace: str, model: Model, there: dict[str, Any] | None, wanted: dict[str, Any]
    ) -> None:
        """Raises Refused where an object of this name belongs to somebody else. Informers do not show such objects,
        because they select by our labels.
        """
        name = wanted["metadata"]["name"]
        if there is None:
            try:
                there = await self.api.get(kind, namespace, name)
            except NotFound:
                pass
        if there is not None and not belongs(there, _meta(model)):
            raise Refused(409, f"there is one of {kind.plural} with the name {name}, and {whose(there)}")
        await self.api.apply(kind, namespace, name, wanted)


def _meta(model: Model) -> dict[str, Any]:
    return {"name": model.metadata.name, "uid": model.metadata.uid}


def _same(there: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    """Tells if the object is as wanted. Any further field in its spec would change its meaning."""
    return there is not None and covers(there, wanted) and there["spec"].keys() == wanted["spec"].keys()
