"""This client administers the chart's store of Ray's state: its users, and keys that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from ..resources import gcs_store as names

_BATCH = 500


class StoreAway(Exception):
    """The store does not answer, or refuses the command."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """`run` is an id that changes with each start of the store."""

    run: str
    memory_bytes: int
    memory_limit_bytes: int


class GcsStore:
    """All methods raise StoreAway."""

    def __init__(self, address: str, password_file: Path, timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        self._file = password_file
        self._redis = Redis(
            host=host,
            port=int(port),
            credential_provider=_FromFile(password_file),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            decode_responses=True,
        )

    def password(self, user: str) -> str:
        try:
            return names.password(_read(self._file), user)
        except OSError as error:
            raise StoreAway(f"{self._file}: {error.strerror}") from error

    async def state(self) -> StoreState:
        told = await self._ask("INFO", "server", "memory")
        return StoreState(str(told["run_id"]), int(told["used_memory"]), int(told["maxmemory"]))

    async def users(self) -> list[str]:
        found: list[str] = await self._ask("ACL", "USERS")
        return found

    async def clusters_of(self, user: str) -> frozenset[str]:
        """Returns the UIDs of the RayClusters whose keys the user may reach; none if there is no such user."""
        for line in await self._ask("ACL", "LIST"):
            words = str(line).split()
            if words[1] == user:
                return names.uids_in(one[1:] for one in words if one.startswith("~"))
        return frozenset()

    async def grant(self, user: str, uids: Iterable[str]) -> None:
        """Makes or changes the user. Its open connections stay."""
        patterns = [f"~{one}" for one in names.keys_of(uids)]
        secret = f">{self.password(user)}"
        await self._ask("ACL", "SETUSER", user, "reset", "on", secret, *patterns, *names.COMMANDS)
        await self._save()

    async def remove(self, user: str) -> None:
        await self._ask("ACL", "DELUSER", user)
        await self._save()

    async def drop(self, uid: str) -> None:
        """Deletes all Redis keys in which the RayCluster with this uid has stored its state."""
        cursor = 0
        while True:
            told: Any = await self._ask("SCAN", cursor, "MATCH", f"{names.prefix(uid)}*", "COUNT", _BATCH)
            cursor, keys = int(told[0]), told[1]
            if keys:
                await self._ask("UNLINK", *keys)
            if cursor == 0:
                return

    async def close(self) -> None:
        await self._redis.aclose()

    async def _save(self) -> None:
        """Writes the users to disk. After a restart of the store heads log in again, even while no controller runs."""
        await self._ask("ACL", "SAVE")

    async def _ask(self, *command: str | int) -> Any:
        try:
            return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise StoreAway(f"{command[0]}: {error}") from error


class _FromFile(CredentialProvider):
    """Reads the password for each new connection, because the file follows a Secret."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get_credentials(self) -> tuple[str]:
        return (_read(self._file),)

    async def get_credentials_async(self) -> tuple[str]:
        return self.get_credentials()


def _read(file: Path) -> str:
    return file.read_text("utf-8").strip()
