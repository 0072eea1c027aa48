"""Files and folders that only their owner may read, because keys and passwords lie in them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Writes the file whole or not at all, whoever else reads or writes it meanwhile. Raises OSError.

    A file that is there is replaced by another one, so its mode and its owner do not matter.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # it has the mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def opener(path: str, flags: int) -> int:
    """Makes files private for `open(…, opener=opener)`."""
    return os.open(path, flags, 0o600)


def make_folder(folder: Path) -> None:
    """Makes the folder where it is missing, and closes one that is there to others. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(PermissionError):  # somebody else's: then only what is made from now on is private
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
