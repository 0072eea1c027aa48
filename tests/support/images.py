"""The images of this project where there is no Docker: archives that containerd, k3s or kind import.

What the Dockerfiles add to their base is made by the same script, scripts/image-root.sh. The base itself, a slim Python
image, is replaced: by this machine's interpreter with its standard library, a shell, `sleep`, and the libraries that
these need. Valkey's image is replaced as well: by that base with the Valkey server that the gateway embeds, and a
valkey-cli that knows `ping`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from .processes import ROOT

UV = ROOT / ".tools" / "bin" / "uv"
ENVIRONMENT = {
    "PATH": "/opt/cloudach/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
VALKEY_CLI = '''#!/opt/cloudach/bin/python
"""As much of valkey-cli as a probe asks for."""
import os, sys, redis
try:
    redis.Redis(password=os.environ.get("REDISCLI_AUTH"), socket_timeout=2).ping()
except redis.RedisError as error:
    sys.exit(str(error))
print("PONG")
'''
_PROGRAMS = ("sh", "sleep", "realpath", "dirname", "env")
_UNUSED = re.compile(
    r"/(site-packages|test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|config-[^/]*)(/|$)|\.a$|/_tkinter"
)


class Contents:
    """Paths in the image, and where their bytes come from: a file of this machine, bytes, or the target of a link."""

    def __init__(self) -> None:
        self.entries: dict[str, Path | bytes | str] = {}

    def add(self, source: Path, at: str | None = None) -> None:
        """A file or link as it is. Links in its path are followed, and stay links."""
        self.entries[at or str(source)] = os.readlink(source) if source.is_symlink() else source

    def add_tree(self, folder: Path, at: str, skip: re.Pattern[str] | None = None) -> None:
        for path in sorted(folder.rglob("*")):
            name = f"{at}/{path.relative_to(folder)}"
            if (path.is_symlink() or path.is_file()) and not (skip and skip.search(name)):
                self.add(path, name)

    def binaries(self) -> Iterator[Path]:
        for source in self.entries.values():
            if isinstance(source, Path):
                with source.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield source


def base() -> Contents:
    """What stands for the slim Python image."""
    contents = Contents()
    prefix = Path(sys.base_prefix)
    contents.add(Path(os.path.realpath(sys.executable)))
    library = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    contents.add_tree(library, str(library), _UNUSED)
    for program in _PROGRAMS:
        found = shutil.which(program)
        assert found, f"{program} is missing on this machine"
        contents.add(Path(os.path.realpath(found)), f"/usr/bin/{program}")
    contents.entries["/bin"] = "usr/bin"  # the scripts begin with /bin/sh
    contents.entries["/etc/nsswitch.conf"] = b"hosts: files dns\n"
    contents.entries["/etc/host.conf"] = b"multi on\n"
    contents.entries["/etc/passwd"] = b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
    return with_libraries(contents)


def package(name: str, folder: Path, *extras: str) -> Contents:
    """What scripts/image-root.sh makes of a package, as the Dockerfiles run it."""
    interpreter = os.path.realpath(sys.executable)
    command = [ROOT / "scripts" / "image-root.sh", name, folder, *extras]
    subprocess.run(command, check=True, env={**os.environ, "UV": str(UV), "UV_PYTHON": interpreter})
    contents = Contents()
    contents.add_tree(folder, "")
    return with_libraries(contents)


def with_libraries(contents: Contents) -> Contents:
    """Adds the shared libraries that its programs load, at the places where the loader looks for them."""
    binaries = [str(path) for path in contents.binaries()]
    for start in range(0, len(binaries), 100):
        done = subprocess.run(["ldd", *binaries[start : start + 100]], capture_output=True, text=True, check=False)
        for path in set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.M)):
            if not path.startswith(str(ROOT)):
                contents.entries.setdefault(path, Path(os.path.realpath(path)))
    return contents


def write(
    archive: Path,
    names: Sequence[str],
    layers: Sequence[Contents],
    *,
    entrypoint: Sequence[str] = (),
    environment: Mapping[str, str] = ENVIRONMENT,
) -> Path:
    """A `docker save` archive of the image with these names; layers with the same contents have the same bytes."""
    parts = [_layer(layer) for layer in layers]
    digests = ["sha256:" + hashlib.sha256(part).hexdigest() for part in parts]
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": digests},
            "config": {
                "Entrypoint": list(entrypoint),
                "Env": [f"{key}={value}" for key, value in environment.items()],
                "User": "65532:65532",
                "WorkingDir": "/",
            },
        }
    ).encode()
    files = {"config.json": config} | {f"layer-{number}.tar": part for number, part in enumerate(parts)}
    manifest = [
        {"Config": "config.json", "RepoTags": list(names), "Layers": [file for file in files if file != "config.json"]}
    ]
    with tarfile.open(archive, "w") as tar:
        for file, data in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            tar.addfile(_info(file, len(data)), io.BytesIO(data))
    return archive


def _layer(contents: Contents) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in _folders(contents.entries):
            info = _info(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for path, source in sorted(contents.entries.items()):
            name = path.lstrip("/")
            if isinstance(source, str):
                info = _info(name)
                info.type, info.linkname = tarfile.SYMTYPE, source
                tar.addfile(info)
                continue
            data = source if isinstance(source, bytes) else source.read_bytes()
            info = _info(name, len(data))
            info.mode = 0o755 if isinstance(source, bytes) or os.access(source, os.X_OK) else 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _folders(paths: Iterable[str]) -> list[str]:
    found = {"tmp"}
    for path in paths:
        parents = path.strip("/").split("/")[:-1]
        found |= {"/".join(parents[: depth + 1]) for depth in range(len(parents))}
    return sorted(found)


def _info(name: str, size: int = 0) -> tarfile.TarInfo:
    """Owned by root, of no date: the same contents are the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info
