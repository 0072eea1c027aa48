"""The images of this project where there is no Docker: archives that containerd, k3s or kind import.

The Dockerfiles of gateway and controller are followed: what they copy, their RUN of scripts/image-root.sh, environment,
user and entrypoint. Their base, a slim Python image, is replaced: by this machine's interpreter with its standard
library, a shell, `sleep`, and the libraries that these need. Valkey's image is replaced as well: by that base with the
Valkey server that the gateway embeds, and a valkey-cli that knows `ping`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import ROOT

UV = ROOT / ".tools" / "bin" / "uv"
DOCKERIGNORE = ROOT / ".dockerignore"
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


@dataclass(frozen=True)
class Image:
    """What runs: layers over nothing, and how an image's configuration says it."""

    layers: Sequence[Contents]
    entrypoint: Sequence[str]
    environment: Sequence[str]
    user: str
    folder: str


def build(dockerfile: Path, base: Contents, work: Path) -> Image:
    """As Docker would, on `base`: a first stage that fills /image, and a second one that adds it to the base."""
    (_, *first), (_, *second) = _stages(dockerfile.read_text())
    source, made = work / "src", work / "image"
    for instruction, rest in first:
        if instruction == "COPY" and not rest.startswith("--from"):
            *paths, to = rest.split()
            for path in paths:
                _copy(ROOT / path, source / to / (Path(path).name if to.endswith("/") else ""))
        elif instruction == "RUN":
            variables, command = _command(rest)
            # The interpreter's place is the base's own affair, and so is uv's.
            own = {"UV": str(UV), "UV_PYTHON": os.path.realpath(sys.executable)}
            subprocess.run(
                [str(made) if word == "/image" else word for word in command],
                check=True,
                cwd=source,
                env={**os.environ, **variables, **own},
            )
    contents = Contents()
    contents.add_tree(made, "")
    said = dict(second)
    assert said["COPY"] == "--from=build /image/ /", said["COPY"]
    return Image(
        layers=[base, with_libraries(contents)],
        entrypoint=json.loads(said["ENTRYPOINT"]),
        environment=said["ENV"].split(),
        user=said["USER"],
        folder=said["WORKDIR"],
    )


def package(name: str, folder: Path, *extras: str) -> Contents:
    """What scripts/image-root.sh makes of a package of this tree."""
    command: list[str | Path] = [ROOT / "scripts" / "image-root.sh", name, folder, *extras]
    interpreter = os.path.realpath(sys.executable)
    subprocess.run(command, check=True, env={**os.environ, "UV": str(UV), "UV_PYTHON": interpreter})
    contents = Contents()
    contents.add_tree(folder, "")
    return with_libraries(contents)


def _stages(dockerfile: str) -> list[list[tuple[str, str]]]:
    """Of each FROM, the instructions with their arguments; what stands before the first is left out."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile, flags=re.M)).splitlines()
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, lines):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((instruction, rest.strip()))
    return stages


def _command(run: str) -> tuple[dict[str, str], list[str]]:
    """`A=b command argument` apart."""
    words = shlex.split(run)
    count = next(number for number, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def _copy(source: Path, target: Path) -> None:
    """A file, or a folder's contents without what .dockerignore takes out of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        left_out = [
            line.removeprefix("**/") for line in DOCKERIGNORE.read_text().splitlines() if line.startswith("**/")
        ]
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out))
    else:
        assert f"!{source.relative_to(ROOT)}" in DOCKERIGNORE.read_text().splitlines(), f"{source} is ignored"
        shutil.copy2(source, target)


def with_libraries(contents: Contents) -> Contents:
    """Adds the shared libraries that its programs load, at the places where the loader looks for them."""
    binaries = [str(path) for path in contents.binaries()]
    for start in range(0, len(binaries), 100):
        done = subprocess.run(["ldd", *binaries[start : start + 100]], capture_output=True, text=True, check=False)
        for path in set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.M)):
            if not path.startswith(str(ROOT)):
                contents.entries.setdefault(path, Path(os.path.realpath(path)))
    return contents


def write(archive: Path, names: Sequence[str], image: Image) -> Path:
    """A `docker save` archive of the image with these names; layers with the same contents have the same bytes."""
    parts = [_layer(layer) for layer in image.layers]
    digests = ["sha256:" + hashlib.sha256(part).hexdigest() for part in parts]
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": digests},
            "config": {
                "Entrypoint": list(image.entrypoint),
                "Env": list(image.environment),
                "User": image.user,
                "WorkingDir": image.folder,
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
