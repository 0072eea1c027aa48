"""Redis URLs: which kind of Redis, and the settings of a connection to it.

redis://[user:password@]host[:port][/db]        rediss:// the same with TLS (options as redis-py's query parameters)
unix://[user:password@]/path/to.sock[?db=0]
redis+sentinel://[user:password@]host:port,host:port/service[/db]
redis+cluster://[user:password@]host:port,host:port        (rediss+sentinel, rediss+cluster: with TLS)
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio.connection import RedisSSLContext, parse_url

Kind = Literal["plain", "sentinel", "cluster"]


@dataclass(frozen=True, slots=True)
class Address:
    """`nodes`: of a plain Redis, itself; the sentinels that know `service`; or any members of a cluster."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    service: str = ""
    tls: bool = False
    tls_options: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def where(self) -> str:
        """For logs: no password."""
        return self.path or ",".join(f"{host}:{port}" for host, port in self.nodes)

    def credentials(self) -> dict[str, Any]:
        """Keyword arguments that redis-py's clients share."""
        found: dict[str, Any] = {"username": self.username, "password": self.password}
        if self.tls:
            found |= {"ssl": True, **self.tls_options}
        return found

    def ssl_context(self) -> ssl.SSLContext | None:
        if not self.tls:
            return None
        options = {name.removeprefix("ssl_"): value for name, value in self.tls_options.items()}
        return RedisSSLContext(**options).get()


def parse(url: str) -> Address:
    """Raises ValueError with what is wrong; the password is never part of the message."""
    scheme = url.partition("://")[0]
    base, plus, kind = scheme.partition("+")
    if base not in ("redis", "rediss", "unix") or kind not in ("", "sentinel", "cluster") or (plus and base == "unix"):
        raise ValueError(
            "a Redis URL starts with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
            "redis+cluster:// or rediss+cluster://"
        )
    if kind:
        return _many(url, base, kind)
    options: dict[str, Any] = dict(parse_url(url))
    common: dict[str, Any] = {
        "username": options.get("username"),
        "password": options.get("password"),
        "db": int(options.get("db") or 0),
    }
    if base == "unix":
        return Address("plain", path=options["path"], **common)
    tls_options = {name: value for name, value in options.items() if name.startswith("ssl_")}
    node = (options.get("host") or "localhost", int(options.get("port") or 6379))
    return Address("plain", nodes=(node,), tls=base == "rediss", tls_options=tls_options, **common)


def _many(url: str, base: str, kind: str) -> Address:
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    default_port = 26379 if kind == "sentinel" else 6379
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", str(default_port))
        if not name or not port.isdigit():
            raise ValueError(f"redis+{kind}://: {host!r} is not host:port")
        nodes.append((name, int(port)))
    path = [piece for piece in parts.path.split("/") if piece]
    if kind == "sentinel" and not path:
        raise ValueError("redis+sentinel://: name the service, as in redis+sentinel://host:26379/mymaster")
    if len(path) > (2 if kind == "sentinel" else 0) or (len(path) == 2 and not path[1].isdigit()):
        raise ValueError(f"redis+{kind}://: cannot use the path {parts.path!r}")
    return Address(
        "sentinel" if kind == "sentinel" else "cluster",
        nodes=tuple(nodes),
        username=unquote(username) or None,
        password=unquote(password) or None,
        service=path[0] if path else "",
        db=int(path[1]) if len(path) == 2 else 0,
        tls=base == "rediss",
        tls_options={name: values[-1] for name, values in parse_qs(parts.query).items() if name.startswith("ssl_")},
    )
