"""All but the conversion itself, which needs torch: the end-to-end test has it."""

import importlib.util
import threading
from pathlib import Path

import pytest
from cloudach_inference import weights


def test_cache_is_shared_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_root(None) == tmp_path / "cloudach"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_root(None) == tmp_path / ".cache" / "cloudach"
    assert weights.cache_root(Path("~/x")) == tmp_path / "x"


def test_of_several_one_converts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    converted: list[Path] = []
    another_waits = threading.Event()

    def convert(gguf: Path, target: Path, say: weights.Say) -> None:
        converted.append(target)
        assert another_waits.wait(20)
        (target / "config.json").write_text("{}")

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
