"""This transport sends requests by the official Kubernetes client.

The client does what is hard to get right: kubeconfig files in all their forms, programs and services that log us in,
the token of a pod, and TLS. Its generated models stay unused, because we take objects as plain dicts.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import yaml
from kubernetes.aio import client as k8s
from kubernetes.aio import config as k8s_config

from .errors import KubeError, Unreachable
from .transport import KEEP_ALIVE

_NO_DEADLINE = aiohttp.ClientTimeout(total=None)  # our client sets one for each request
_RENEW_S = 60.0


class OfficialTransport:
    def __init__(self, api: k8s.ApiClient, *, agent: str) -> None:
        self._api = api
        self._agent = agent

    @asynccontextmanager
    async def send(
        self, method: str, path: str, *, query: Mapping[str, str], content: str, body: Any | None
    ) -> AsyncIterator[_Answer]:
        headers = {"Accept": "application/json", "User-Agent": self._agent, "Content-Type": content}
        url = f"{self._api.configuration.host}{path}{f'?{urlencode(query)}' if query else ''}"
        with _translated():
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            sent = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=_NO_DEADLINE
            )
        async with sent.response as answer:
            yield _Answer(answer)


class _Answer:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status

    async def read(self) -> bytes:
        with _translated():
            return await self._answer.read()

    async def chunks(self) -> AsyncGenerator[bytes]:
        with _translated():
            async for data in self._answer.content.iter_any():
                yield data


@asynccontextmanager
async def connect(kubeconfig: Path | None, *, agent: str) -> AsyncIterator[OfficialTransport]:
    """Connects by this kubeconfig, or else by our pod's service account, or else by the kubeconfig of our user.

    Raises KubeError when there is no usable configuration. The server is not asked. `agent` names us in its logs.
    """
    configuration = k8s.Configuration()
    await _load(kubeconfig, configuration)
    async with k8s.ApiClient(configuration) as api:
        tls = api.rest_client.ssl_context
        # Without a limit, because each watch holds a connection for good, and a namespace has ten.
        async with aiohttp.TCPConnector(limit=0, ssl=tls, socket_factory=_kept_alive) as connector:
            configuration.client_session_kwargs = {"connector": connector}
            yield OfficialTransport(api, agent=agent)


async def _load(kubeconfig: Path | None, configuration: k8s.Configuration) -> None:
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            k8s_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return
        path = str(kubeconfig) if kubeconfig is not None else None
        await k8s_config.load_kube_config(  # type: ignore[no-untyped-call]
            path, client_configuration=configuration, persist_config=False
        )
    except (k8s_config.ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
        # The client takes a file for what it should be, and trips where it is something else.
        raise KubeError(0, f"kubernetes: no usable configuration: {error}") from error
    if "BearerToken" in configuration.api_key:
        _renew(kubeconfig, configuration)


def _renew(kubeconfig: Path | None, configuration: k8s.Configuration) -> None:
    """Renews tokens that programs or files give, because they run out. The client does so only where it has a hook."""
    due = asyncio.get_running_loop().time() + _RENEW_S

    async def hook(configuration: k8s.Configuration) -> None:
        nonlocal due
        now = asyncio.get_running_loop().time()
        if now < due:
            return
        due = math.inf  # others who ask meanwhile use the one of before
        fresh = k8s.Configuration()
        try:
            await _load(kubeconfig, fresh)
            if "BearerToken" in fresh.api_key:  # a program that fails leaves none, and the old one may hold a while
                configuration.api_key = fresh.api_key
        finally:
            due = now + _RENEW_S

    configuration.refresh_api_key_hook = hook  # type: ignore[assignment]


def _kept_alive(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    for option in KEEP_ALIVE:
        made.setsockopt(*option)
    return made


@contextmanager
def _translated() -> Iterator[None]:
    """Turns errors of the client, and of what it stands on, into ours."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError, k8s_config.ConfigException) as error:
        raise Unreachable(0, f"the API server does not answer: {type(error).__name__}: {error}") from error
