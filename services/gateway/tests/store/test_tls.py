"""rediss://, against a Valkey behind a TLS terminator."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.store.trouble import StoreDown


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def tls_url(valkey_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """The session's Valkey, with a certificate for `localhost` of an authority in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    credentials, _, place = valkey_url.partition("@")
    port = int(place.split(":")[1].split("/")[0])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    outer = server.sockets[0].getsockname()[1]
    yield f"{credentials.replace('redis', 'rediss', 1)}@localhost:{outer}/0"
    server.close()


async def test_a_trusted_certificate(tls_url: str, tmp_path: Path, start_admission, tenant: str) -> None:
    url = f"{tls_url}?ssl_ca_certs={tmp_path / 'ca.pem'}"

    def create() -> keys.NewKey:
        with KeyStore(url) as store:
            return keys.create(store, tenant=tenant)

    key = await asyncio.to_thread(create)
    admission = await start_admission(url)
    assert not admission.degraded
    assert (await admission.authenticate(key.api_key)).key_id == key.record.id


async def test_a_strange_certificate_is_refused(tls_url: str, start_admission) -> None:
    admission = await start_admission(tls_url)
    assert admission.degraded
    with pytest.raises(StoreDown, match="certificate"):
        await asyncio.to_thread(KeyStore.now_ms, KeyStore(tls_url))


async def test_another_hosts_certificate_is_refused(tls_url: str, tmp_path: Path, start_admission) -> None:
    url = f"{tls_url.replace('localhost', '127.0.0.1')}?ssl_ca_certs={tmp_path / 'ca.pem'}"
    assert (await start_admission(url)).degraded
    assert not (await start_admission(url + "&ssl_check_hostname=false")).degraded
