"""The files made from the types: up to date, and what a CRD may hold."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudach_model_api.crd import crd, openapi
from cloudach_model_api.engine import OWNED_ARGS
from cloudach_model_api.generated import BEGIN, END, with_fields
from cloudach_model_api.schema import structural
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[3]
RELEASED = max(ROOT.glob("tests/charts/released/cloudach-crds-*.tgz"))


def command(action: str, root: Path) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "cloudach_model_api", action, "--root", str(root)]
    return subprocess.run(asked, capture_output=True, text=True, check=False)


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from schemas(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from schemas(schema[key], f"{path}[]")


def test_the_committed_files_are_up_to_date() -> None:
    done = command("check", ROOT)
    assert done.returncode == 0, done.stdout


def test_nobody_is_told_a_regular_expression() -> None:
    """The API server would print `pattern`; a rule has words of its own."""
    spec = openapi()["properties"]["spec"]
    assert [path for path, schema in schemas(spec) if "pattern" in schema] == []
    messages = [
        rule["message"] for _, schema in schemas(openapi()) for rule in schema.get("x-kubernetes-validations", ())
    ]
    assert [message for message in messages if "^" in message or ".*" in message] == []


def test_check_tells_a_stale_file_and_write_mends_it(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/models.md").write_text(f"# Mine\n{BEGIN}\nold\n{END}\nend\n")
    assert command("write", tmp_path).returncode == 0
    assert command("check", tmp_path).returncode == 0
    text = (tmp_path / "docs/models.md").read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\nend\n")
    assert "| `drainSeconds` | integer ≥ 0, ≤ 7,200 | `60` |" in text
    crd_file = tmp_path / "k8s/crds/models.cloudach.dev.yaml"
    crd_file.write_text(crd_file.read_text().replace("Namespaced", "Cluster"))
    done = command("check", tmp_path)
    assert done.returncode == 1
    assert "models.cloudach.dev.yaml: out of date" in done.stdout


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no"):
        with_fields("# nothing here")


def test_the_document_names_every_argument_that_is_refused() -> None:
    text = (ROOT / "docs/models.md").read_text()
    assert [name for name in OWNED_ARGS if f"`{name}`" not in text] == []


def test_the_charts_crd_is_the_same_but_kept_on_uninstall() -> None:
    plain = yaml.safe_load((ROOT / "k8s/crds/models.cloudach.dev.yaml").read_text())
    chart = yaml.safe_load((ROOT / "charts/cloudach-crds/templates/models.cloudach.dev.yaml").read_text())
    assert plain == crd()
    assert chart["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert chart == plain


def test_every_schema_is_structural() -> None:
    for path, schema in schemas(openapi()):
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "title", "const", "oneOf", "allOf"} & set(schema), path
        assert not (schema.get("properties") and schema.get("additionalProperties")), path


def test_the_api_server_adds_nothing_to_a_model_that_the_release_before_does_not_know() -> None:
    """Its controller refuses what it does not know, and runs on from the CRD's upgrade to the chart's."""
    with tarfile.open(RELEASED) as chart:
        (template,) = (one for one in chart.getmembers() if one.name.endswith("/models.cloudach.dev.yaml"))
        held = chart.extractfile(template)
        assert held is not None
        released = yaml.safe_load(held.read())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    known = dict(schemas(released))
    added = [
        path
        for path, schema in schemas(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        if "default" in schema and path not in known and path.rpartition(".")[0] in known
    ]
    assert added == []


def test_every_field_is_explained() -> None:
    """But for those that are as in a pod, and explained there."""
    as_in_a_pod = (".spec.engine.env[]", ".spec.tolerations[]", ".spec.resources.")
    bare = [
        path
        for part in ("spec", "status")
        for path, schema in schemas(openapi()["properties"][part], f".{part}")
        if path.count(".") > 1 and not path.endswith("[]") and not path.startswith(as_in_a_pod)
        if not schema.get("description")
    ]
    assert bare == []


def test_what_cannot_be_structural_is_refused() -> None:
    class Either(BaseModel):
        value: int | str | None = None

    with pytest.raises(ValueError, match=r"Either\.value"):
        structural(Either)
