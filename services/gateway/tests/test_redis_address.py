"""Redis URLs."""

from __future__ import annotations

import ssl

import pytest
from cloudach_gateway.redis_address import parse, with_password


@pytest.mark.parametrize(
    "url", ["redis://host:6379/0", "rediss://host?ssl_cert_reqs=none", "redis+sentinel://a:1,b:2/s", "unix:///s.sock"]
)
@pytest.mark.parametrize("password", ["pw", "pw\n", "a/b#c?d@e:f %41", "ü"])
def test_a_password_may_have_any_characters(url: str, password: str) -> None:
    assert parse(with_password(url, password)).password == password


def test_a_password_in_the_url_stays() -> None:
    assert parse(with_password("redis://:own@host", "other")).password == "own"
    assert with_password("redis://host", None) == with_password("redis://host", "") == "redis://host"


@pytest.mark.parametrize("url", ["redis://app@host:1/2", "redis://app:@host:1/2", "redis+sentinel://app@a:1,b:2/s"])
def test_a_user_in_the_url_and_its_password_beside_it(url: str) -> None:
    address = parse(with_password(url, "a/b@c"))
    assert (address.username, address.password) == ("app", "a/b@c")
    assert (address.nodes, address.db, address.service) == (parse(url).nodes, parse(url).db, parse(url).service)


def test_an_at_sign_in_the_path_is_no_password() -> None:
    address = parse(with_password("unix:///run/redis@6379.sock", "pw"))
    assert (address.path, address.password) == ("/run/redis@6379.sock", "pw")


@pytest.mark.parametrize("mark", ["/", "?", "#"])
@pytest.mark.parametrize(
    "url", ["redis://:{}@h:1/0", "rediss://u:{}@h", "redis+sentinel://:{}@h:1/s", "redis+cluster://u:{}@h"]
)
@pytest.mark.parametrize("password", ["hunter2{}x", "x{}hunter2"])
def test_a_password_that_ends_its_part_of_the_url_is_refused_and_not_shown(mark: str, url: str, password: str) -> None:
    with pytest.raises(ValueError, match="percent-encode") as refused:
        parse(url.format(password.format(mark)))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("mark", ["/", "#"])
def test_one_with_an_at_sign_before_it_too(mark: str) -> None:
    with pytest.raises(ValueError, match="percent-encode"):
        parse(f"redis://:a@b{mark}c@host")


def test_an_at_sign_in_an_option_is_none_of_the_password() -> None:
    assert parse("rediss://host:1/0?ssl_password=p@ss").nodes == (("host", 1),)
    assert parse("rediss://[::1]:1?ssl_password=p@ss").nodes == (("::1", 1),)


def test_plain() -> None:
    address = parse("redis://me:p%40ss@host:7000/3")
    assert (address.kind, address.nodes, address.username, address.password, address.db) == (
        "plain",
        (("host", 7000),),
        "me",
        "p@ss",
        3,
    )
    assert "p@ss" not in repr(address)
    assert address.where == "host:7000"
    assert parse("redis://host").nodes == (("host", 6379),)


def test_unix() -> None:
    address = parse("unix://:secret@/run/redis.sock?db=2")
    assert (address.path, address.password, address.db) == ("/run/redis.sock", "secret", 2)


def test_tls() -> None:
    context = parse("rediss://host:1/0?ssl_cert_reqs=none").ssl_context()
    assert context is not None
    assert context.verify_mode == ssl.CERT_NONE
    strict = parse("rediss://host:1/0").ssl_context()
    assert strict is not None
    assert strict.verify_mode == ssl.CERT_REQUIRED
    assert parse("redis://host:1/0").ssl_context() is None


def test_sentinel_and_cluster() -> None:
    address = parse("redis+sentinel://u:p%2Fw@a:1,b:2/mymaster/4")
    assert (address.kind, address.nodes, address.service, address.db) == (
        "sentinel",
        (("a", 1), ("b", 2)),
        "mymaster",
        4,
    )
    assert address.password == "p/w"
    assert parse("rediss+cluster://a,b:7").nodes == (("a", 6379), ("b", 7))
    assert parse("rediss+cluster://a").tls


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "redis+other://a",
        "redis+sentinel://a:1",
        "redis+cluster://a:x",
        "redis+cluster://a:1/0",
        "a:6379",
        "",
    ],
)
def test_bad(url: str) -> None:
    with pytest.raises(ValueError, match="redis"):
        parse(url)


def test_bad_tls_options() -> None:
    with pytest.raises(ValueError, match="ssl_ca_cert is not known"):
        parse("rediss://a?ssl_ca_cert=x")
    with pytest.raises(ValueError, match="ssl_cert_reqs"):
        parse("rediss+cluster://a?ssl_cert_reqs=perhaps")
    with pytest.raises(ValueError, match="certificates"):
        parse("rediss://a?ssl_ca_certs=/nowhere").ssl_context()
