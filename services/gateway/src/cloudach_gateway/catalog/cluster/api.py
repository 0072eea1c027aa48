"""Reads and writes what the gateway needs of a Kubernetes API server: Models, their use, and Secrets."""

from __future__ import annotations

from cloudach_kube.access import Access, AccessError
from cloudach_kube.client import KubeClient, Object
from cloudach_kube.kinds import SECRETS, Kind
from cloudach_kube.light import LightTransport
from cloudach_model_api import ModelUse, UseStatus, names

from ...settings import ConfigError, Kubernetes

MODELS = Kind(names.GROUP, names.VERSION, names.PLURAL)
_MODEL_USES = Kind(names.GROUP, names.VERSION, names.USE_PLURAL)
_MANAGER = "cloudach-gateway"


def find_access(settings: Kubernetes) -> Access:
    """Finds the API server by these settings, and does not ask it. Raises ConfigError when they lead to none."""
    try:
        return Access.find(settings.kubeconfig, settings.context)
    except AccessError as error:
        raise ConfigError(str(error)) from error


class Api:
    """Reads Secrets, and reads and writes the status of ModelUses. All methods raise KubeError.

    Lists and watches have no method here; callers use `client` for them.
    """

    def __init__(self, access: Access, *, timeout_s: float) -> None:
        self._transport = LightTransport(access, agent=_MANAGER)
        self.client = KubeClient(self._transport, manager=_MANAGER, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._transport.close()

    async def use(self, namespace: str, name: str) -> UseStatus:
        """Returns the marks of a Model's use that any gateway wrote last."""
        return ModelUse.from_object(await self.client.get(_MODEL_USES, namespace, name)).status

    async def secret(self, namespace: str, name: str) -> Object:
        return await self.client.get(SECRETS, namespace, name)

    async def write_use(self, namespace: str, name: str, use: UseStatus) -> None:
        """Writes those marks of a Model's use that are set in `use`. The other marks stay as they are."""
        await self.client.merge(_MODEL_USES, namespace, name, use.to_patch(), sub="status")
