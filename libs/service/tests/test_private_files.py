from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cloudach_service import private_files


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_private_also_where_an_open_one_was(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as reader:
        private_files.write(path, "schlüssel\n")
        assert reader.read() == "old"  # whoever has begun to read it gets the whole of the old one
    assert path.read_bytes() == "schlüssel\n".encode()
    assert _mode(path) == 0o600
    private_files.write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["key"]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()  # nothing can take its place
    with pytest.raises(OSError, match="key"):
        private_files.write(tmp_path / "key", "new")
    assert os.listdir(tmp_path) == ["key"]
    with pytest.raises(FileNotFoundError):
        private_files.write(tmp_path / "missing" / "key", "new")


def test_an_opened_file_is_private(tmp_path: Path) -> None:
    with open(tmp_path / "log", "ab", opener=private_files.opener) as log:
        log.write(b"a")
    assert _mode(tmp_path / "log") == 0o600


def test_a_folder_is_closed_to_others(tmp_path: Path) -> None:
    private_files.make_folder(tmp_path / "a" / "b")
    assert _mode(tmp_path / "a" / "b") == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    private_files.make_folder(tmp_path / "open")
    assert _mode(tmp_path / "open") == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        private_files.make_folder(tmp_path / "file")
