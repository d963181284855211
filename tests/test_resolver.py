"""A resolver finds versions for what a user installs, and the constraints files hold such versions. Asks the package index for
metadata (no wheel is loaded), by uv; left out where either is missing.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.sampling.vllm_signatures import VERSIONS, index_url, recorded, signatures

ROOT = Path(__file__).parents[1]
UV = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else [shutil.which("uv") or ""]
PLATFORM = "x86_64-manylinux_2_28"

pytestmark = pytest.mark.slow

CONSTRAINTS = {
    "constraints.txt": ("3.11.7", "peft,onnx,genai,quickstart,dev,docs"),
    "constraints-transformers4.txt": ("3.11.7", "peft,onnx,genai,optimum,quickstart,dev"),
    "constraints-vllm.txt": ("3.12", "peft,vllm"),
}
"""File -> Python, and the extras that it is for."""

OF_TORCH = ("nvidia-", "cuda-", "triton", "setuptools")
"""What torch's build for CUDA brings along; the other files are of a machine without a GPU, with torch's other build."""


@pytest.fixture(scope="module", autouse=True)
def _index():
    if not UV[0]:
        pytest.skip("uv is not installed")
    try:
        urllib.request.urlopen(f"{index_url()}/pip/", timeout=5).close()
    except (urllib.error.URLError, TimeoutError) as error:
        pytest.skip(f"no package index answers at {index_url()}: {error}")


def solve(tmp_path, python, extras, *, more=(), constraints=None):
    """Package -> version; fails with what the resolver says where there is no solution."""
    further = tmp_path / "further.in"
    further.write_text("".join(f"{line}\n" for line in more))
    command = [*UV, "pip", "compile", "pyproject.toml", str(further), "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", PLATFORM, "--index-url", index_url()]
    command += [argument for extra in extras.split(",") for argument in ("--extra", extra)]
    command += ["--constraint", constraints] if constraints else []
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    return pins(run.stdout)


def pins(text):
    requirements = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    versions = {}
    for requirement in requirements:
        [pin] = requirement.specifier
        assert pin.operator == "==", f"{requirement} is no pin"
        versions[requirement.name.lower().replace("_", "-").replace(".", "-")] = Version(pin.version)
    return versions


@pytest.mark.parametrize(
    ("python", "extras", "more", "transformers"),
    [
        ("3.11", "peft,onnx", ["transformers>=5"], 5),
        ("3.11", "peft,onnx", ["transformers<5"], 4),
        ("3.11", "peft,onnx,optimum", [], 4),
        ("3.11", "peft,onnx-gpu", ["transformers>=5"], 5),
        ("3.11", "peft,vllm", [], 5),
        ("3.12", "peft,vllm", [], 5),
        *[("3.12", "peft,vllm", [f"vllm=={version}", "transformers>=5"], 5) for version in VERSIONS],
        ("3.12", "peft,vllm,openai,filters,plots,ray", [], 5),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else str(value),
)
def test_what_a_user_installs_has_a_solution(tmp_path, python, extras, more, transformers):
    found = solve(tmp_path, python, extras, more=more)
    assert found["transformers"].major == transformers
    assert ("vllm" in found) == ("vllm" in extras)


@pytest.mark.parametrize("file", CONSTRAINTS)
def test_a_constraints_file_is_a_solution(tmp_path, file):
    python, extras = CONSTRAINTS[file]
    held = pins((ROOT / file).read_text(encoding="utf-8"))
    found = solve(tmp_path, python, extras, constraints=file)
    if "vllm" in extras:
        assert found == held, "the whole set, and nothing else"
    else:
        missing = [name for name in found if name not in held and not name.startswith(OF_TORCH)]
        assert not missing, f"{file} leaves the versions of {missing} open"
        assert all(found[name] == version for name, version in held.items() if name in found)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recorded_signatures_are_those_of_the_wheel(version):
    assert signatures(version) == recorded()[version]
