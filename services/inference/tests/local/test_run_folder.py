import os
import subprocess
import sys
from pathlib import Path

import pytest
from cloudach_inference.local import run_folder


def test_folder_is_private_short_and_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_folder, "base_folder", lambda: tmp_path)
    with run_folder.run_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(folder.name) == 12
        run_folder.sweep(tmp_path)  # another run that starts now
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_base_is_short_enough_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/var/folders/of/some/length")
    assert run_folder.base_folder() == Path("/tmp")  # noqa: S108


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\nfrom cloudach_inference.local import run_folder\n"
        f"run_folder.base_folder = lambda: pathlib.Path({str(tmp_path)!r})\n"
        "with run_folder.run_folder() as folder:\n    (folder / 'left').touch(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    stranger = tmp_path / "cld-stranger"
    stranger.mkdir()
    assert len(os.listdir(tmp_path)) == 2
    run_folder.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [stranger]
