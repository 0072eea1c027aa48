"""The Secret that locks Ray's dashboards, made and made again. The API server is on paper."""

from __future__ import annotations

from typing import Any

from cloudach_controller.act.ray_token import RayToken
from cloudach_kube.errors import Conflict
from cloudach_kube.kinds import Kind

KEY = ("llm", "token")


class Paper:
    """`held`: what the watch tells; `there`: what there is."""

    def __init__(self) -> None:
        self.held: dict[Any, Any] = {}
        self.there: dict[Any, Any] = {}

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        key = namespace, body["metadata"]["name"]
        if key in self.there:
            raise Conflict(409, "there")
        self.there[key] = body
        return body


def tokens(paper: Paper, *, unseen: bool = False) -> RayToken:
    return RayToken(paper, "token", paper.held, unseen=lambda namespace: unseen)


def value(paper: Paper) -> str:
    return str(paper.there[KEY]["data"]["auth_token"])


async def test_a_deleted_one_comes_back_with_the_token_that_the_pods_know() -> None:
    paper = Paper()
    token = tokens(paper)
    paper.there[KEY] = paper.held[KEY] = {"data": {"auth_token": "b2xk"}}
    token.seen(KEY, paper.held[KEY])
    await token.keep("llm", for_new_pods=False)
    token.seen(KEY, paper.held.pop(KEY))
    del paper.there[KEY]
    await token.keep("llm", for_new_pods=False)
    assert value(paper) == "b2xk"


async def test_one_that_was_just_made_and_is_gone_before_the_watch_told_of_it_comes_back_as_it_was() -> None:
    paper = Paper()
    token = tokens(paper)
    await token.keep("llm", for_new_pods=True)
    made = value(paper)
    paper.there.clear()
    await token.keep("llm", for_new_pods=True)
    assert value(paper) == made


async def test_each_namespace_has_its_own() -> None:
    paper = Paper()
    token = tokens(paper)
    for namespace in ("llm", "other"):
        await token.keep(namespace, for_new_pods=True)
    first, second = (one["data"]["auth_token"] for one in paper.there.values())
    assert first != second


async def test_without_the_right_to_see_it_one_is_made_for_new_pods_alone() -> None:
    paper = Paper()
    token = tokens(paper, unseen=True)
    await token.keep("llm", for_new_pods=False)
    assert not paper.there
    await token.keep("llm", for_new_pods=True)
    made = value(paper)
    await token.keep("llm", for_new_pods=True)
    assert value(paper) == made
