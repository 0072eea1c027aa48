"""The list of checks: Lua and Python agree by name, and a new check is one row and one file."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admission.api_keys import parse_api_key
from cloudach_gateway.admission.check import Alone, Check, Refused
from cloudach_gateway.admission.checks import CHECKS
from cloudach_gateway.admission.checks.guided import GUIDED
from cloudach_gateway.admission.grants import Ask, Settlement
from cloudach_gateway.admission.key_records import FIELDS
from cloudach_gateway.admission.local import LocalLimiter
from cloudach_gateway.admission.rules import Rules
from cloudach_gateway.admission.script_calls import Decoder, Encoder
from cloudach_gateway.admission.scripts import ADMISSION, LIMITER, RULES, SETTLEMENT, Renewal, assembled
from cloudach_gateway.errors import LimitState, RateLimited
from cloudach_gateway.store import layout
from cloudach_gateway.store.scripts import ScriptError, load

# A check that no gateway has: an API key may ask once for each fingerprint, until its request has ended.
ONCE = Check(
    name="once",
    keys={"asked": "cloudach:{{{tenant}}}:asked:{key_id}"},
    lua="if redis.call('HEXISTS', KEY.asked, ARG.fingerprint) == 1 then return answer('twice', 3000000) end",
    admitted="redis.call('HSET', KEY.asked, ARG.fingerprint, lease)",
    ended="redis.call('DEL', KEY.asked)",
    refusals={"twice": lambda r: RateLimited("Once is enough.", kind="requests", retry_after_s=r.wait_s)},
    alone=lambda seen: Refused("twice", 3.0) if seen.ask.retry else None,
)


def without_comments(lua: str) -> str:
    return re.sub("--.*", "", lua)


def changed(check: Check, **changes: str) -> list[Check]:
    return [dataclasses.replace(one, **changes) if one is check else one for one in CHECKS]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ARG.guidded", "KEY.guidded", "RECORD.guidded", "ARG.window_s", "RECORD.older"])
def test_a_name_that_python_does_not_know_fails_at_load(name: str) -> None:
    with pytest.raises(ScriptError, match=re.escape(name)):
        assembled(changed(GUIDED, lua=f"if {name} then return answer('guided', 1) end"))


def test_an_argument_that_lua_does_not_use_fails_at_load(tmp_path: Path) -> None:
    (tmp_path / "sum.lua").write_text("return ARG.one + ARG.two -- ARG.three\n")
    assert load(tmp_path, "sum", args=("one", "two")).source.startswith(b"return ARGV[1] + ARGV[2]")
    with pytest.raises(ScriptError, match=r"ARG\.three is passed and not used"):
        load(tmp_path, "sum", args=("one", "two", "three"))


@pytest.mark.parametrize("moment", ["renewed", "ended", "booked"])
def test_a_name_is_looked_for_in_every_script(moment: str) -> None:
    with pytest.raises(ScriptError, match=r"there is no ARG\.tokens"):  # which is the request's, at its admission alone
        assembled(changed(GUIDED, **{moment: "redis.call('ECHO', ARG.tokens)"}))


def test_two_checks_cannot_give_one_name_to_two_redis_keys() -> None:
    other = dataclasses.replace(ONCE, keys={"log": "cloudach:{{{tenant}}}:other"})
    with pytest.raises(ScriptError, match="log"):
        assembled([*CHECKS, other])


def test_every_argument_has_one_name() -> None:
    for names in (ADMISSION, SETTLEMENT, Renewal._fields, FIELDS):
        assert len(set(names)) == len(names)
    assert {"window_us", "grace_us", "lease_ttl_us", "most_guided"} == set(RULES)
    assert set(Ask._fields) < set(ADMISSION)
    assert set(Settlement._fields) < set(SETTLEMENT)


def test_no_name_is_left_for_redis_to_stumble_over() -> None:
    for script in LIMITER:
        assert not re.search(rb"\b(KEY|ARG|RECORD)\b|@", script.source)
        assert script.keys
        assert len(set(script.keys)) == len(script.keys)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_check_has_words_for_each_of_its_refusals(check: Check) -> None:
    said = set(re.findall(r"(?:answer|promised|return) ?[({]'(\w+)'", without_comments(check.lua)))
    if check.name == "windows":
        said |= set(re.findall(r"return '(\w+)'", (Path(__file__).parents[2] / WINDOW_LUA).read_text()))
    assert said == set(check.refusals)
    others = {status for other in CHECKS if other is not check for status in other.refusals}
    assert not said & others


WINDOW_LUA = "src/cloudach_gateway/admission/lua/window.lua"


def test_checks_of_the_key_come_first() -> None:
    of_key = [check.of_key for check in CHECKS]
    assert of_key == sorted(of_key, reverse=True)
    assert {check.name for check in CHECKS if check.alone is None} == {"known"}


def test_a_new_check_is_asked_with_redis(client: redis.Redis, make_key) -> None:
    """From its row alone: its Lua in all scripts, its Redis key, its words."""
    key: keys.NewKey = make_key(requests=100)
    limiter = assembled([*CHECKS, ONCE])
    encoder, decoder = Encoder(Rules(), limiter), Decoder()
    presented = parse_api_key(key.api_key)

    def ask(name: str, fingerprint: str):
        names, args = encoder.admit(presented, Ask(name, ("m",), 1, fingerprint, model="m", route="chat"))
        raw = redis.Redis(connection_pool=client.connection_pool).eval(limiter.admit.source, len(names), *names, *args)
        return decoder.admit(
            presented,
            [part.encode() if isinstance(part, str) else part for part in raw[:6]]
            + [[value and value.encode() for value in raw[6]]],
        )

    first = ask("a", "f")
    assert first.refused is None
    assert ask("b", "g").refused is None
    again = ask("c", "f")
    assert (again.refused, again.wait_s) == ("twice", 3.0)
    record = key.record
    done = Settlement(record.tenant, record.id, "a", first.lease, "20260101", 1, 1, 0, "finished", "m", "chat")
    names, args = encoder.settle(done)
    assert client.eval(limiter.settle.source, len(names), *names, *args) == 1
    assert ask("d", "f").refused is None


def test_a_new_check_is_asked_without_redis(make_key) -> None:
    key: keys.NewKey = make_key()
    presented = parse_api_key(key.api_key)
    limiter = LocalLimiter(Rules(), 60.0, 1.0, checks=[*CHECKS, ONCE])
    limiter.remember(presented, key.record, LimitState())
    limiter.admit(presented, Ask("a", ("m",), 1, "f"), running=0)
    with pytest.raises(RateLimited, match="Once is enough") as refused:
        limiter.admit(presented, Ask("b", ("m",), 1, "f", retry=True), running=1)
    assert refused.value.retry_after_s == 3.0
    assert refused.value.limits == LimitState()


def test_the_checks_keep_their_order_without_redis(make_key) -> None:
    """Who asks comes before what is asked, and what is asked before how often."""
    key: keys.NewKey = make_key(requests=1, tokens=5, models=["m"])
    asked: list[str] = []

    def noting(check: Check) -> Check:
        def note(seen: Alone) -> Refused | None:
            asked.append(check.name)
            return check.alone(seen) if check.alone is not None else None

        return dataclasses.replace(check, alone=note)

    limiter = LocalLimiter(Rules(), 60.0, 1.0, checks=[noting(check) for check in CHECKS], clock=time.monotonic)
    presented = parse_api_key(key.api_key)
    limiter.remember(presented, key.record, LimitState())
    limiter.admit(presented, Ask("a", ("m",), 1, "f"), running=0)
    assert asked == [check.name for check in CHECKS]


def test_what_is_stored_has_the_names_of_before(client: redis.Redis, make_key) -> None:
    """Gateways of two versions run side by side: where things lie in Redis is no matter of this version alone."""
    assert [pattern.format(tenant="t", key_id="k", day="d", request_id="r") for pattern in layout.KEYS.values()] == [
        "cloudach:{t}:key:k",
        "cloudach:{t}:log:k",
        "cloudach:{t}:cost:k",
        "cloudach:{t}:promises:k",
        "cloudach:{t}:prints:k",
        "cloudach:{t}:held:k",
        "cloudach:{t}:state:k",
        "cloudach:{t}:leases:k",
        "cloudach:{t}:running:k",
        "cloudach:{t}:open",
        "cloudach:{t}:lost",
        "cloudach:{t}:usage:k:d",
        "cloudach:{t}:used:d",
        "cloudach:{t}:records",
        "cloudach:{t}:trimmed",
        "cloudach:{t}:settled:r",
    ]
    assert GUIDED.keys["guided"].format(tenant="t") == "cloudach:{t}:guided"
