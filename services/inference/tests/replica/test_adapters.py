"""LoRA adapters on a node: what the engine is told of them, where they come from, and which one is wrong."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cloudach_inference.replica.adapters import Adapter, AdapterError, Lora, engine_args, fetch, rank


def put(folder: Path, r: object = 8, *, weights: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": r}))
    if weights:
        (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def lora(folder: Path, *ranks: int, **more: Any) -> Lora:
    found = [Adapter(name=f"a{n}", folder=str(put(folder / str(n), r))) for n, r in enumerate(ranks)]
    return Lora(adapters=tuple(found), **more)


@pytest.mark.parametrize(
    ("ranks", "more", "expected"),
    [
        ((8,), {}, {"max_lora_rank": 8, "max_loras": 8, "max_cpu_loras": 8}),
        ((4, 40, 16), {"max_loaded": 1}, {"max_lora_rank": 64, "max_loras": 1, "max_cpu_loras": 3}),
        ((8,), {"max_rank": 32}, {"max_lora_rank": 32}),
        ((8,), {"max_rank": 100}, {"max_lora_rank": 128}),
    ],
)
def test_the_engine_makes_room(
    tmp_path: Path, ranks: tuple[int, ...], more: dict[str, Any], expected: dict[str, int]
) -> None:
    found = engine_args(lora(tmp_path, *ranks, **more))
    assert found["enable_lora"] is True
    assert expected.items() <= found.items()


def test_on_cpus_there_is_a_place_for_none(tmp_path: Path) -> None:
    found = engine_args(lora(tmp_path, 8, 8, max_loaded=1), on_cpu=True)
    assert (found["max_loras"], found["max_cpu_loras"]) == (3, 3)


def test_a_rank_above_the_allowed_one_names_the_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="LoRA adapter 'a1': its rank 64 is above the largest allowed, 32"):
        engine_args(lora(tmp_path, 8, 64, max_rank=32))


@pytest.mark.parametrize(
    ("config", "weights", "said"),
    [
        (None, True, "there is no adapter_config.json in "),
        ("{", True, "adapter_config.json of .* cannot be read"),
        ("[]", True, ".* names no rank"),
        ('{"r": "8"}', True, ".* names no rank"),
        ('{"r": 8}', False, "there is no adapter_model.safetensors in "),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, config: str | None, weights: bool, said: str) -> None:
    folder = put(tmp_path / "x", weights=weights)
    (folder / "adapter_config.json").unlink()
    if config is not None:
        (folder / "adapter_config.json").write_text(config)
    with pytest.raises(AdapterError, match=f"^LoRA adapter 'sql': {said}"):
        rank(Adapter(name="sql", folder=str(folder)))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The hub's library in its place: what it was asked for, and with which environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo: str, **options: Any) -> str:
        if repo == "o/missing":
            raise FileNotFoundError("Repository Not Found")
        asked.append({"repo": repo, **options, "endpoint": os.environ.get("AWS_ENDPOINT_URL")})
        put(Path(options["local_dir"]))
        return str(options["local_dir"])

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def test_from_the_hub_with_its_own_token(hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-base")
    monkeypatch.setenv("ADAPTER_X_HF_TOKEN", "its-own")
    own = Adapter(name="a", repo="o/a", revision="v2", env_prefix="ADAPTER_X_")
    fetch(own)
    fetch(Adapter(name="b", repo="o/b"))
    assert [(one["repo"], one["revision"], one["token"]) for one in hub] == [
        ("o/a", "v2", "its-own"),
        ("o/b", None, "of-the-base"),
    ]
    assert os.environ["HF_TOKEN"] == "of-the-base"
    assert rank(own) == 8


def test_two_revisions_lie_side_by_side(hub: list[dict[str, Any]]) -> None:
    one, two = (Adapter(name="a", repo="o/a", revision=revision) for revision in ("v1", "v2"))
    fetch(one)
    fetch(two)
    assert one.path != two.path


def test_an_error_crosses_processes() -> None:
    error = AdapterError.of("sql", "it is gone")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "LoRA adapter 'sql': it is gone"


def test_what_the_hub_says_is_told_with_the_adapters_name(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(AdapterError, match="LoRA adapter 'a': o/missing: FileNotFoundError: Repository Not Found"):
        fetch(Adapter(name="a", repo="o/missing"))


def test_a_folder_is_left_where_it_is(tmp_path: Path) -> None:
    fetch(Adapter(name="a", folder=str(tmp_path / "not there")))
    assert list(tmp_path.iterdir()) == []
