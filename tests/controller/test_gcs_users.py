"""Models' users in the store of Ray's state, on a real Valkey. The API server is on paper."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from cloudach_controller.act.gcs_store import GcsStore
from cloudach_controller.act.gcs_users import GcsUsers
from cloudach_controller.resources.gcs_store import GCS_STORE_SECRET, owner_of
from cloudach_kube.client import KubeClient
from cloudach_kube.errors import NotFound
from cloudach_kube.kinds import Kind
from cloudach_model_api.model import Model
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from tests.support.raystore import ADMIN, RayStore

Key = tuple[str, str]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[RayStore]:
    server = RayStore(tmp_path)
    yield server
    server.kill()


class Paper:
    """Secrets, as the API server keeps them."""

    def __init__(self) -> None:
        self.secrets: dict[Key, dict[str, Any]] = {}
        self.writes = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        self.secrets[namespace, body["metadata"]["name"]] = body
        return body

    async def merge(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        if self.meanwhile is not None:
            await self.meanwhile()
        if (namespace, name) not in self.secrets:
            raise NotFound(404, name)
        data = self.secrets[namespace, name]["data"] | body["data"]
        self.secrets[namespace, name]["data"] = {entry: value for entry, value in data.items() if value is not None}
        return self.secrets[namespace, name]


class Site:
    """A controller with its Models and RayClusters; `unseen` holds namespaces in which it lacks a right."""

    def __init__(self, valkey: RayStore, folder: Path) -> None:
        secret = folder / "password"
        secret.write_text(f"{ADMIN}\n")
        self.valkey, self.paper = valkey, Paper()
        self.models: dict[Key, dict[str, Any]] = {}
        self.clusters: dict[Key, list[dict[str, Any]]] = {}  # by their Models
        self.unseen: set[str] = set()
        self.gone: set[str] = set()
        self.looks = 0
        self.store = GcsStore(f"127.0.0.1:{valkey.port}", secret, timeout_s=5.0)
        self.begin()

    def begin(self) -> None:
        """A controller that has just been started."""
        self.users = GcsUsers(
            cast(KubeClient, self.paper),
            self.store,
            clusters=self.clusters,
            models=self.models,
            held=self.paper.secrets,
            unseen=lambda namespace: namespace in self.unseen,
            settled=lambda namespace: namespace != "unwatched" and namespace not in self.gone,
            gone=self._is_gone,
            changed=self._changed,
        )

    async def _is_gone(self, namespace: str) -> bool:
        return namespace in self.gone

    def _changed(self) -> None:
        self.looks += 1

    async def model(self, name: str, uid: str, *clusters: str, namespace: str = "llm") -> None:
        """A Model with the RayClusters of these UIDs; the controller has looked at it."""
        metadata = {"name": name, "namespace": namespace, "uid": uid}
        self.models[namespace, name] = {"metadata": metadata, "spec": {"source": {"simulator": {}}}}
        self.clusters[namespace, name] = [{"metadata": {"uid": each}} for each in clusters]
        await self.users.keep((namespace, name), Model.from_object(self.models[namespace, name]))

    def head(self, name: str, uid: str, namespace: str = "llm") -> Redis:
        """The connection of a Model's head, with what its pod is given."""
        secret = self.paper.secrets[namespace, GCS_STORE_SECRET]["data"][name]
        return self.valkey.client(f"{namespace}.{name}.{uid}", b64decode(secret).decode())

    async def until(self, reached: Callable[[], object]) -> None:
        watching = asyncio.create_task(self.users.watch(0.02))
        try:
            async with asyncio.timeout(20):
                while not reached():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            watching.cancel()

    def admin(self) -> Redis:
        return self.valkey.client("default", ADMIN)

    def owners(self) -> set[str]:
        """The Models that have a user."""
        return {one.name for user in self.admin().acl_users() if (one := owner_of(user)) is not None}


@pytest.fixture
async def site(valkey: RayStore, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(valkey, tmp_path)
    await site.until(lambda: site.looks)
    yield site
    await site.store.close()


def write(head: Redis, cluster: str) -> None:
    """As Ray's GCS does."""
    head.delete("DUMMY")
    head.info()
    head.hset(f"RAY{cluster}@KV", "a", "b")
    assert head.hscan(f"RAY{cluster}@KV") == (0, {"a": "b"})


async def test_a_models_heads_reach_the_keys_of_its_own_clusters_and_no_others(site: Site) -> None:
    await site.model("qwen", "u1", "c1", "c2")
    await site.model("llama", "u2", "c3")
    qwen, llama = site.head("qwen", "u1"), site.head("llama", "u2")
    for cluster in ("c1", "c2"):
        write(qwen, cluster)
    write(llama, "c3")
    for other in (llama.hgetall, llama.delete, llama.dump):
        with pytest.raises(NoPermissionError):
            other("RAYc1@KV")
    for command in ("FLUSHALL", "CONFIG GET *", "ACL LIST", "MONITOR", "EVAL return(1) 0", "SAVE", "CLIENT LIST"):
        with pytest.raises(NoPermissionError):
            llama.execute_command(*command.split())
    with pytest.raises(AuthenticationError):
        site.valkey.client("llm.qwen.u1", "guessed").ping()


async def test_a_cluster_on_its_way_gets_in_and_one_that_is_gone_leaves_nothing(site: Site) -> None:
    await site.model("qwen", "u1", "c1")
    write(site.head("qwen", "u1"), "c1")
    head = site.head("qwen", "u1")
    await site.model("qwen", "u1", "c1", "c2")
    write(head, "c2")
    await site.model("qwen", "u1", "c2")
    assert site.admin().keys() == ["RAYc2@KV"]
    with pytest.raises(NoPermissionError):
        write(head, "c1")


async def test_nothing_is_asked_while_nothing_changes(site: Site) -> None:
    await site.model("qwen", "u1", "c1")
    writes, asked = site.paper.writes, site.admin().info("stats")["total_commands_processed"]
    for _ in range(10):
        await site.model("qwen", "u1", "c1")
    assert site.paper.writes == writes
    # The two of this line and the one before: login, and the question itself.
    assert site.admin().info("stats")["total_commands_processed"] - asked <= 5


async def test_a_login_writes_no_line_to_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await site.store.close()
    assert await site.store.users() == ["default"]
    assert caplog.records == []


async def test_a_secret_that_somebody_deletes_is_made_again(site: Site) -> None:
    await site.model("qwen", "u1", "c1")
    site.paper.secrets.clear()
    await site.model("qwen", "u1", "c1")
    write(site.head("qwen", "u1"), "c1")


async def test_heads_log_in_again_after_a_restart_of_the_store_without_a_controller(site: Site) -> None:
    await site.model("qwen", "u1", "c1")
    write(site.head("qwen", "u1"), "c1")
    site.valkey.kill()
    site.valkey.start()
    assert site.head("qwen", "u1").hget("RAYc1@KV", "a") == "b"


async def test_a_store_that_lost_its_users_gets_them_back(site: Site) -> None:
    await site.model("qwen", "u1", "c1")
    site.valkey.kill()
    await site.until(lambda: not site.users._run)
    await site.model("qwen", "u1", "c1")  # a look meanwhile goes on
    site.valkey.acl.write_text(f"user default on >{ADMIN} ~* &* +@all\n")
    site.valkey.start()
    looks = site.looks
    await site.until(lambda: site.looks > looks)
    await site.model("qwen", "u1", "c1")
    write(site.head("qwen", "u1"), "c1")


async def test_a_store_that_loses_a_user_while_its_password_is_written_gets_it_back(site: Site) -> None:
    async def lost() -> None:
        site.paper.meanwhile = None
        site.valkey.kill()
        site.valkey.acl.write_text(f"user default on >{ADMIN} ~* &* +@all\n")
        site.valkey.start()
        looks = site.looks
        await site.until(lambda: site.looks > looks)

    site.paper.meanwhile = lost
    await site.model("qwen", "u1", "c1")
    await site.model("qwen", "u1", "c1")  # the look that a store that has begun anew asks for
    write(site.head("qwen", "u1"), "c1")


async def test_what_a_deleted_model_left_is_removed_after_its_last_cluster(site: Site) -> None:
    """KubeRay's clean-up logs in as the Model until the cluster is gone. Where it cannot, the keys go all the same."""
    await site.model("qwen", "u1", "c1")
    await site.model("llama", "u2", "c3")
    write(site.head("qwen", "u1"), "c1")
    write(site.head("llama", "u2"), "c3")
    del site.models["llm", "qwen"]
    site.begin()
    looks = site.looks
    await site.until(lambda: site.looks > looks)
    assert site.owners() == {"qwen", "llama"}
    del site.clusters["llm", "qwen"]
    await site.until(lambda: "qwen" not in site.paper.secrets["llm", GCS_STORE_SECRET]["data"])
    assert site.owners() == {"llama"}
    assert site.admin().keys() == ["RAYc3@KV"]


async def test_a_model_made_anew_under_its_name_does_not_see_what_was_there(site: Site) -> None:
    await site.model("qwen", "u1", "c1")
    write(site.head("qwen", "u1"), "c1")
    await site.model("qwen", "u9", "c9")
    with pytest.raises(NoPermissionError):
        site.head("qwen", "u9").hgetall("RAYc1@KV")
    assert site.head("qwen", "u9").ping()


async def test_users_stay_where_models_or_clusters_cannot_be_seen(site: Site) -> None:
    """A namespace that is left out of the list serves on, and a right that is missing says nothing about a Model."""
    for namespace in ("unwatched", "blind"):
        await site.model("qwen", "u1", "c1", namespace=namespace)
        del site.models[namespace, "qwen"]
    site.clusters.clear()
    site.unseen.add("blind")
    assert not site.users.usable("blind")
    await site.model("llama", "u2", "c3")
    del site.models["llm", "llama"]
    site.clusters.clear()
    await site.until(lambda: site.owners() == {"qwen"})
    assert len(site.admin().acl_users()) == 3


async def test_what_a_namespace_that_is_gone_left_is_removed(site: Site) -> None:
    """Its Role went with it, so its Models and RayClusters cannot be seen, and KubeRay's clean-up was refused."""
    await site.model("qwen", "u1", "c1", namespace="gone")
    await site.model("llama", "u2", "c3")
    write(site.head("qwen", "u1", "gone"), "c1")
    write(site.head("llama", "u2"), "c3")
    site.models.pop(("gone", "qwen"))
    site.clusters.pop(("gone", "qwen"))
    site.paper.secrets.pop(("gone", GCS_STORE_SECRET))
    site.unseen.add("gone")
    site.gone.add("gone")
    await site.until(lambda: site.owners() == {"llama"})
    assert site.admin().keys() == ["RAYc3@KV"]


CLEAN_UP = """
import sys
from ray._private.gcs_utils import cleanup_redis_storage
port, user, password, cluster = sys.argv[1:]
done = cleanup_redis_storage(host="127.0.0.1", port=int(port), username=user, password=password, use_ssl=False,
                             storage_namespace=cluster)
sys.exit(0 if done else 1)
"""


async def test_kuberays_clean_up_may_do_its_work(site: Site) -> None:
    """By Ray's own function, which KubeRay's Job calls with the head's environment."""
    await site.model("qwen", "u1", "c1")
    await site.model("llama", "u2", "c3")
    write(site.head("qwen", "u1"), "c1")
    write(site.head("llama", "u2"), "c3")
    secret = b64decode(site.paper.secrets["llm", GCS_STORE_SECRET]["data"]["qwen"]).decode()
    command = [sys.executable, "-c", CLEAN_UP, str(site.valkey.port), "llm.qwen.u1", secret, "c1"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.admin().keys() == ["RAYc3@KV"]
