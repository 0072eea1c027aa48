"""Whose a serving name is: who holds it keeps it, else the oldest gets it; all at once and change by change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cloudach_model_api import Claim, Grant, Model, Names, allocate
from cloudach_model_api.claims import Key, Refusal
from hypothesis import given, settings
from hypothesis import strategies as some

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def model(name: str, day: int = 0, *, held: tuple[str, ...] | None = None, adapters: Any = (), **spec: Any) -> Model:
    if adapters:
        spec["lora"] = {"adapters": [{"source": {"simulator": {}}, **one} for one in adapters]}
    made = (FIRST + timedelta(days=day)).isoformat()
    obj = {
        "metadata": {"name": name, "namespace": "llm", "creationTimestamp": made},
        "spec": {"source": {"simulator": {}}, **spec},
        "status": {} if held is None else {"names": list(held)},
    }
    return Model.from_object(obj)


def shares(*models: Model, reserved: tuple[str, ...] = ()) -> dict[str, Grant]:
    claims = [claim for one in models if (claim := Claim.of(one)) is not None]
    return {name: grant for (_, name), grant in allocate(claims, reserved).items()}


def test_the_older_model_gets_a_name_that_nobody_holds() -> None:
    found = shares(model("young", 2, aliases=["chat", "y"]), model("old", 1, aliases=["chat"]))
    assert found["old"].names == ("old", "chat")
    assert found["young"].names == ("young", "y")
    assert found["young"].refused == (Refusal("chat", ("llm", "old")),)
    assert found["old"].wanted == {"chat": ("llm", "young")}


def test_who_holds_a_name_keeps_it() -> None:
    """The older one asks for it by an edit: as an alias, as its id, as an adapter's id, or by an adapter's name."""
    young = model("young", 2, aliases=["chat"], held=("young", "chat"))
    for edit in (
        {"aliases": ["chat"]},
        {"id": "chat"},
        {"adapters": [{"name": "a", "id": "chat"}]},
    ):
        found = shares(young, model("old", 1, held=("old",), **edit))
        assert found["young"].names == ("young", "chat"), edit
        assert Refusal("chat", ("llm", "young")) in found["old"].refused, edit
    young = model("young", 2, id="old:a", held=("old:a",))
    found = shares(young, model("old", 1, adapters=[{"name": "a"}], held=("old",)))
    assert (found["young"].names, found["old"].adapters) == (("old:a",), ())


def test_names_of_adapters_are_held_too() -> None:
    kept = model("young", 2, aliases=["y"], adapters=[{"name": "a", "id": "sql"}])
    held = shares(kept)["young"].held
    assert held == ("young", "y", "sql", "young:a")
    kept = kept.model_copy(update={"status": kept.status.model_copy(update={"names": held})})
    for name in ("sql", "young:a", "y:a"):  # the last follows from an alias, and is not told of
        found = shares(kept, model("old", 1, aliases=[name], held=("old",)))
        assert found["old"].names == ("old",), name
        assert found["young"].adapters[0].names == ("sql", "young:a", "y:a")
    told = model("old", 1, aliases=["y:a"], held=("old", "y:a"))
    assert shares(kept, told)["old"].names == ("old", "y:a"), "it was given that name before"


def test_a_name_that_its_holder_gives_up_goes_to_the_oldest() -> None:
    gives_up = model("holder", 9, held=("holder", "chat"))
    found = shares(gives_up, model("b", 2, aliases=["chat"], held=("b",)), model("a", 1, aliases=["chat"], held=("a",)))
    assert found["a"].names == ("a", "chat")


def test_two_models_swap_their_names() -> None:
    found = shares(model("a", 1, id="two", held=("one",)), model("b", 2, id="one", held=("two",)))
    assert (found["a"].names, found["b"].names) == (("two",), ("one",))


def test_a_model_without_its_own_id_holds_nothing() -> None:
    """It was renamed to what is another's: its alias would never be served."""
    holder = model("holder", 3, id="taken", held=("taken",))
    renamed = model("renamed", 2, id="taken", aliases=["chat"], held=("before", "chat"))
    found = shares(holder, renamed, model("third", 4, aliases=["chat"], held=("third",)))
    assert (found["renamed"].names, found["renamed"].held) == ((), ())
    assert found["third"].names == ("third", "chat")


def test_two_that_stand_in_each_others_way() -> None:
    """Each asks for the other's name as its id and keeps its own as an alias: the older one gets both."""
    found = shares(
        model("a", 1, id="two", aliases=["one"], held=("one",)), model("b", 2, id="one", aliases=["two"], held=("two",))
    )
    assert (found["a"].names, found["b"].names) == (("two", "one"), ())


def test_a_long_row_in_which_each_has_the_next_ones_id() -> None:
    row = [model(f"m{n}", n, id=f"x{n + 1}", aliases=[f"x{n}"], held=(f"x{n}",)) for n in range(2000)]
    assert sum(bool(grant.names) for grant in shares(*row).values()) > 900


names = some.sampled_from(["a", "b", "c", "a:x", "b:x"])
asked = some.fixed_dictionaries(
    {
        "id": names,
        "aliases": some.lists(names, max_size=2, unique=True),
        "adapters": some.lists(some.sampled_from(["x", "y"]), max_size=2, unique=True),
        "own": some.none() | names,
    }
)
edits = some.lists(some.tuples(some.integers(0, 3), some.none() | asked, some.booleans()), max_size=12)


def asking(number: int, spec: dict[str, Any], held: tuple[str, ...]) -> Claim | None:
    adapters: list[dict[str, Any]] = [{"name": name} for name in spec["adapters"]]
    if adapters and spec["own"]:
        adapters[0]["id"] = spec["own"]
    try:
        wanted = {"id": spec["id"], "aliases": spec["aliases"], "adapters": adapters}
        return Claim.of(model(f"m{number}", number, held=held, **wanted))
    except Exception:
        return None  # its names are twice the same


@given(edits)
@settings(max_examples=300, deadline=None)
def test_all_agree_and_come_to_rest(row: list[tuple[int, dict[str, Any] | None, bool]]) -> None:
    """Edits, some of them before the controller has told of the last: whoever is asked says the same, no name is twice,
    and nobody loses a name that he holds and asks for, unless he does not get his id."""
    told: dict[Key, tuple[str, ...]] = {}
    claims: dict[Key, Claim] = {}
    specs: dict[Key, dict[str, Any]] = {}
    again: set[Key] = set()
    index = Names(again.add)

    def take(key: Key) -> None:
        claim = asking(int(key[1][1:]), specs[key], told.get(key, ())) if key in specs else None
        claims.pop(key, None)
        if claim is not None:
            claims[key] = claim
        index.take(key, claim)

    def tell() -> bool:
        for key in list(claims):
            told[key] = index.grant(key).held
        before = {key: index.grant(key) for key in claims}
        for key in list(claims):
            take(key)
        return {key: index.grant(key) for key in claims} == before

    for number, spec, telling in row:
        key = ("llm", f"m{number}")
        if spec is None:
            specs.pop(key, None)
            told.pop(key, None)
        elif asking(number, spec, ()) is None:
            continue  # the API server refuses it
        else:
            specs[key] = spec
        held_before = {one: set(told.get(one, ())) & set(claim.all_names()) for one, claim in claims.items()}
        take(key)
        everyone = allocate(claims.values())
        assert {one: index.grant(one) for one in claims} == everyone
        served = [name for grant in everyone.values() for name in grant.names]
        served += [name for grant in everyone.values() for adapter in grant.adapters for name in adapter.names]
        assert len(served) == len(set(served))
        for one, held in held_before.items():
            if one != key and one in everyone and everyone[one].names:
                grant = everyone[one]
                mine = {*grant.names, *(name for adapter in grant.adapters for name in adapter.names)}
                lost = {name for name in held - mine if any(name in other.names for other in everyone.values())}
                assert not lost, (one, lost)
        if telling:
            tell()
    for _ in range(6):
        if tell():
            break
    else:
        raise AssertionError("it does not come to rest")
