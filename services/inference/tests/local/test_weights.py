"""All but the conversion itself, which needs torch: the end-to-end test has it."""

import importlib.metadata
import importlib.util
import json
import threading
from pathlib import Path

import pytest
from cloudach_inference.cache import cache_root
from cloudach_inference.local import weights


def test_cache_is_shared_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root(None) == tmp_path / "cloudach"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root(None) == tmp_path / ".cache" / "cloudach"
    assert cache_root(Path("~/x")) == tmp_path / "x"


def test_of_several_one_converts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    converted: list[Path] = []
    another_waits = threading.Event()

    def convert(gguf: Path, target: Path, say: weights.Say) -> None:
        converted.append(target)
        assert another_waits.wait(20)
        (target / "config.json").write_text("{}")
        (target / "generation_config.json").write_text("{}")

    monkeypatch.setattr(weights, "_convert", convert)
    monkeypatch.setattr(weights, "_source", lambda: Path("gguf"))
    folder = tmp_path / "weights" / "m"
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.endswith("waiting"):
            another_waits.set()

    runs = [threading.Thread(target=weights.prepare, args=(folder, say)) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(converted) == 1
    assert (folder / "config.json").exists()
    assert "weights: another run is preparing them; waiting" in said
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["m"]


def test_half_a_conversion_is_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def convert(gguf: Path, target: Path, say: weights.Say) -> None:
        (target / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "_convert", convert)
    monkeypatch.setattr(weights, "_source", lambda: Path("gguf"))
    with pytest.raises(weights.WeightsError, match=r"No space left on device.*cache_dir"):
        weights.prepare(tmp_path / "m", lambda _: None)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # also where it is installed
    with pytest.raises(weights.WeightsError, match="make engine"):
        weights.prepare(tmp_path / "m", lambda _: None)


def converted_with(generation: dict[str, object], monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, object]:
    """What generation_config.json says after the conversion left it with `generation`."""

    def convert(gguf: Path, target: Path, say: weights.Say) -> None:
        (target / "generation_config.json").write_text(json.dumps(generation))

    monkeypatch.setattr(weights, "_convert", convert)
    monkeypatch.setattr(weights, "_source", lambda: Path("gguf"))
    weights.prepare(folder, lambda _: None)
    said = json.loads((folder / "generation_config.json").read_text())
    assert isinstance(said, dict)
    return said


def test_the_folder_carries_the_sampling_that_the_models_authors_recommend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = converted_with({"eos_token_id": 2, "_from_model_config": True}, monkeypatch, tmp_path / "m")
    assert said == {"eos_token_id": 2, "do_sample": True, "temperature": 0.2, "top_p": 0.9}


def test_a_folder_that_was_prepared_without_them_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.2")
    before = tmp_path / "weights" / "smollm2-135m-instruct-0.1.2-1"
    before.mkdir(parents=True)
    assert not weights.is_ready(weights.default_folder(tmp_path))
