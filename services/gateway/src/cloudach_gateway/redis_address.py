"""Redis URLs: which kind of Redis, and the settings of a connection to it.

redis://[user:password@]host[:port][/db]        rediss:// the same with TLS (options as redis-py's query parameters)
unix://[user:password@]/path/to.sock[?db=0]
redis+sentinel://[user:password@]host:port,host:port/service[/db]
redis+cluster://[user:password@]host:port,host:port        (rediss+sentinel, rediss+cluster: with TLS)
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url

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
        return found | self.tls_keywords()

    def tls_keywords(self) -> dict[str, Any]:
        """For redis-py. Its own defaults have changed between versions, so they are spelled out."""
        return (
            {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True, **self.tls_options}
            if self.tls
            else {}
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. Certificates are checked unless the URL says ssl_cert_reqs=none. Raises ValueError."""
        if not self.tls:
            return None
        options = self.tls_options
        try:
            context = ssl.create_default_context(
                cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"), cadata=options.get("ssl_ca_data")
            )
            if options.get("ssl_certfile"):
                context.load_cert_chain(
                    options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password")
                )
        except OSError as error:
            raise ValueError(f"rediss://: cannot use the certificates: {error}") from error
        required = str(options.get("ssl_cert_reqs", "required"))
        if not options.get("ssl_check_hostname", True) or required == "none":
            context.check_hostname = False
        context.verify_mode = {
            "none": ssl.CERT_NONE,
            "optional": ssl.CERT_OPTIONAL,
            "required": ssl.CERT_REQUIRED,
        }[required]
        return context


_TLS_OPTIONS = {
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
}


_FILES = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}


def anchored(url: str, folder: Path) -> str:
    """The URL with relative paths of certificates made absolute below the folder."""
    base, question, query = url.strip().partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    there = [(name, str(folder / value) if name in _FILES else value) for name, value in options]
    return url if there == options else base + question + urlencode(there)


def with_password(url: str, password: str | None) -> str:
    """The URL with this password, whatever characters it has; one that has its own keeps that."""
    scheme, mark, rest = url.strip().partition("://")
    where = re.split(r"[/?#]", rest)[0]
    user, _, hosts = where.rpartition("@")
    name, _, own = user.partition(":")
    if not password or not mark or own:
        return url
    return f"{scheme}://{name}:{quote(password, safe='')}@{hosts}{rest.removeprefix(where)}"


def _checked(tls_options: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(tls_options) - _TLS_OPTIONS)
    if unknown:
        raise ValueError(f"rediss://: {', '.join(unknown)} is not known; there are {', '.join(sorted(_TLS_OPTIONS))}")
    if tls_options.get("ssl_cert_reqs", "required") not in ("none", "optional", "required"):
        raise ValueError("rediss://: ssl_cert_reqs is none, optional or required")
    checked = dict(tls_options)
    if "ssl_check_hostname" in checked:
        checked["ssl_check_hostname"] = str(checked["ssl_check_hostname"]).lower() not in ("false", "no", "0")
    return checked


def parse(url: str) -> Address:
    """Raises ValueError with what is wrong; the password is never part of the message."""
    url = url.strip()  # a Secret often ends in a newline
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("a Redis URL holds no white space and no control characters: percent-encode them")
    scheme = url.partition("://")[0]
    base, plus, kind = scheme.partition("+")
    if base not in ("redis", "rediss", "unix") or kind not in ("", "sentinel", "cluster") or (plus and base == "unix"):
        raise ValueError(
            "a Redis URL starts with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
            "redis+cluster:// or rediss+cluster://"
        )
    if base != "unix":
        _check_password(url)
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
    tls_options = _checked({name: value for name, value in options.items() if name.startswith("ssl_")})
    path = urlsplit(url).path.strip("/")
    if path and not path.isdigit():
        raise ValueError(f"{base}://: the path is the number of a database, not {path!r}")
    node = (options.get("host") or "localhost", int(options.get("port") or 6379))
    return Address("plain", nodes=(node,), tls=base == "rediss", tls_options=tls_options, **common)


def _check_password(url: str) -> None:
    """One with a bare `/`, `?` or `#` ends the part of the URL that it stands in, and would be shown as a port."""
    rest = url.partition("://")[2]
    where = re.split(r"[/?#]", rest)[0]
    path = rest.removeprefix(where).partition("?")[0]
    in_query = "@" in rest and "@" not in where and re.search(r"^:|:\D", re.sub(r"\[.*?\]", "h", where)) is not None
    if "@" in path or in_query:
        raise ValueError("a password in a Redis URL has no bare /, ? or #: percent-encode them, or set redis.password")


def _many(url: str, base: str, kind: str) -> Address:
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    default_port = 26379 if kind == "sentinel" else 6379
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", str(default_port))
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
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
        tls_options=_checked({name: values[-1] for name, values in parse_qs(parts.query).items()}),
    )
