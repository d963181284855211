"""The signatures of vLLM that the engine calls, read from its wheels; written to `vllm_signatures.json`.

    python -m tests.sampling.vllm_signatures    # for another version: VERSIONS, and the extra `vllm` of pyproject.toml

A wheel is a zip file of some 300 MB, of which the index gives any part: about 3 MB are read. Names, kinds and defaults of
parameters are kept (`ast`; nothing of vLLM is run), and the tests bind the engine's calls to them.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

VERSIONS = ("0.22.0", "0.31.0")
"""The ends of the bounds in pyproject.toml."""

FILE = Path(__file__).with_suffix(".json")

FUNCTIONS = {
    "LLM": ("vllm/entrypoints/llm.py", "LLM.__init__"),
    "LLM.generate": ("vllm/entrypoints/llm.py", "LLM.generate"),
    "RequestOutput": ("vllm/outputs.py", "RequestOutput.__init__"),
}
FIELDS = {
    "EngineArgs": ("vllm/engine/arg_utils.py", "EngineArgs"),
    "SamplingParams": ("vllm/sampling_params.py", "SamplingParams"),
    "CompletionOutput": ("vllm/outputs.py", "CompletionOutput"),
    "LoRARequest": ("vllm/lora/request.py", "LoRARequest"),
}


def index_url() -> str:
    """The package index that is configured, without a slash at its end."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), "https://pypi.org/simple").rstrip("/")


class RemoteFile(io.RawIOBase):
    """A file of which any part can be read over HTTP."""

    def __init__(self, url: str) -> None:
        self._url, self._position = url, 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30) as answer:
            self._size = int(answer.headers["Content-Length"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        last = self._position + wanted - 1
        request = urllib.request.Request(self._url, headers={"Range": f"bytes={self._position}-{last}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 206:
                raise OSError(f"{self._url}: the index gives no parts of files")
            data = answer.read()
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_wheel(version: str) -> zipfile.ZipFile:
    """vLLM's wheel for Linux on x86-64, of which only what is read is loaded."""
    request = urllib.request.Request(f"{index_url()}/vllm/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        files = json.load(answer)["files"]
    [url] = [
        file["url"]
        for file in files
        if file["filename"].startswith(f"vllm-{version}-") and file["filename"].endswith("x86_64.whl")
    ]
    return zipfile.ZipFile(io.BufferedReader(RemoteFile(url), 1 << 20))


def signatures(version: str) -> dict[str, Any]:
    """What the engine calls of a version of vLLM."""
    with open_wheel(version) as wheel:
        sources = {path for path, _ in [*FUNCTIONS.values(), *FIELDS.values()]} | {"vllm/config/lora.py"}
        trees = {path: ast.parse(wheel.read(path)) for path in sorted(sources)}
    found: dict[str, Any] = {name: _parameters(_find(trees[path], what)) for name, (path, what) in FUNCTIONS.items()}
    found |= {name: _fields(_find(trees[path], what)) for name, (path, what) in FIELDS.items()}
    found["attributes of LLM"] = _attributes(_find(trees["vllm/entrypoints/llm.py"], "LLM.__init__"))
    found["MaxLoRARanks"] = _literal(trees["vllm/config/lora.py"], "MaxLoRARanks")
    return found


def _find(tree: Any, path: str) -> Any:
    for name in path.split("."):
        [tree] = [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name and not _overload(node)
        ]
    return tree


def _overload(node: Any) -> bool:
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)


def _parameters(function: ast.FunctionDef) -> str:
    """The parameters of a method as Python writes them, without `self` and types."""
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    text = ast.unparse(function.args)
    assert text.startswith("self, ")
    return text.removeprefix("self, ")


def _fields(definition: ast.ClassDef) -> str:
    """The fields of a dataclass or struct as its constructor's parameters; private ones are its own business."""
    fields = [
        node
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_")
    ]
    return ", ".join(f"{field.target.id}{_default(field.value)}" for field in fields)  # type: ignore[union-attr]


def _default(value: ast.expr | None) -> str:
    """A constant as it is; what another place of vLLM decides as `...`."""
    if value is None:
        return ""
    is_constant = isinstance(value, ast.Constant) or (
        isinstance(value, ast.UnaryOp) and isinstance(value.operand, ast.Constant)
    )
    return f"={ast.unparse(value) if is_constant else '...'}"


def _attributes(function: ast.FunctionDef) -> list[str]:
    targets = [node.targets[0] for node in ast.walk(function) if isinstance(node, ast.Assign)]
    targets += [node.target for node in ast.walk(function) if isinstance(node, ast.AnnAssign)]
    return sorted(
        target.attr
        for target in targets
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" and not target.attr.startswith("_")
    )


def _literal(tree: ast.Module, name: str) -> list[int]:
    [value] = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
    assert isinstance(value, ast.Subscript)
    return list(ast.literal_eval(value.slice))


def recorded() -> dict[str, dict[str, Any]]:
    """Version -> what was read from it."""
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def bindable(parameters: str) -> inspect.Signature:
    """A signature that calls can be bound to, from parameters as Python writes them."""
    made: dict[str, Any] = {}
    exec(f"def made({parameters}): ...", {}, made)  # constants and `...` alone, see `_default`
    return inspect.signature(made["made"])


def _written(versions: dict[str, dict[str, Any]]) -> str:
    """A line for each thing, so that a change of it is one line's."""
    blocks = []
    for version, things in versions.items():
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in things.items())
        blocks.append(f"  {json.dumps(version)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(_written({version: signatures(version) for version in VERSIONS}), encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size} bytes")
