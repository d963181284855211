"""A graph whose weights lie outside of it: mapped from the exporter's file, and written one by one.

A protobuf holds at most 2 GB, and keeps what was once in it in memory. So weights never go through one: the exporter's file is
mapped, a conversion replaces one array after the other, and the result is written tensor by tensor.
"""

from __future__ import annotations

import mmap
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from trl_rrtf.models.onnx_runtime import MODEL_FILE

WEIGHTS_FILE = "model.onnx_data"
"""Weights outside of the graph, where they are large."""

Array = np.ndarray[Any, Any]

_LARGEST_FILE = 600 * 10**6
"""Bytes of weights that lie in the graph itself. A protobuf holds 2 GB, but a session needs twice its size to load it."""

_LARGEST_CONSTANT = 2**14
"""Bytes of a tensor that stays in the graph, where passes over it can read it."""

_ALIGNMENT, _LARGE = 4096, 2**20
"""Of tensors from 1 MB in the file, so that a runtime can map them (ONNX's advice)."""

_INITIALIZER, _GRAPH, _RAW_DATA = 5, 7, 9
"""Numbers of the fields `GraphProto.initializer`, `ModelProto.graph` and `TensorProto.raw_data` (onnx.proto)."""


@dataclass
class WeightedGraph:
    """A graph and its weights.

    Attributes:
        proto: The graph; its initialisers are only small constants.
        weights: By name, what else the graph's nodes take as initialisers.
        folder: For temporary files.
        mappings: Of the files that weights lie in.
    """

    proto: onnx.ModelProto
    weights: dict[str, Array]
    folder: Path
    mappings: list[mmap.mmap] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a graph; weights in a file beside it are mapped, not read."""
        proto = onnx.load(path, load_external_data=False)
        files: dict[str, mmap.mmap] = {}
        weights, constants = {}, []
        for tensor in proto.graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                value = _mapped(tensor, path.parent, files)
            else:
                value = numpy_helper.to_array(tensor)
            if value.nbytes > _LARGEST_CONSTANT:
                weights[tensor.name] = value
            else:
                constants.append(numpy_helper.from_array(np.array(value), tensor.name))
        # Into a new message: what is removed from a message, or replaced in it, stays in memory.
        del proto.graph.initializer[:]
        slim = onnx.ModelProto.FromString(proto.SerializeToString())
        slim.graph.initializer.extend(constants)
        return cls(slim, weights, path.parent, list(files.values()))

    def release_pages(self) -> None:
        """Gives back the memory of what was read from the files; it is read again when it is needed again."""
        for mapping in self.mappings:
            mapping.madvise(mmap.MADV_DONTNEED)

    def value(self, name: str) -> Array | None:
        """The value of an initialiser or of a `Constant`; None if the name is neither's."""
        if name in self.weights:
            return self.weights[name]
        for tensor in self.proto.graph.initializer:
            if tensor.name == name:
                return _array(tensor)
        for node in self.proto.graph.node:
            if node.op_type == "Constant" and node.output[0] == name:
                value = helper.get_attribute_value(node.attribute[0])
                return _array(value) if isinstance(value, TensorProto) else np.array(value)
        return None

    def bytes(self) -> int:
        """Of the weights and constants."""
        constants = sum(_array(tensor).nbytes for tensor in self.proto.graph.initializer)
        return constants + sum(value.nbytes for value in self.weights.values())

    def drop_unused(self) -> None:
        """Drops the weights and constants that no node takes any more."""
        used = {name for node in self.proto.graph.node for name in node.input}
        used |= {value.name for value in self.proto.graph.output}
        self.weights = {name: value for name, value in self.weights.items() if name in used}
        constants = [tensor for tensor in self.proto.graph.initializer if tensor.name in used]
        del self.proto.graph.initializer[:]
        self.proto.graph.initializer.extend(constants)

    def merge_equal(self) -> None:
        """Keeps equal weights once: tied ones, which exporters write once per use, and some as their transpose."""
        renamed: dict[str, str] = {}
        kept: dict[Any, list[str]] = defaultdict(list)
        for name, value in self.weights.items():
            same = next((other for other in kept[_sample(value)] if np.array_equal(self.weights[other], value)), None)
            if same is None:
                kept[_sample(value)].append(name)
            else:
                renamed[name] = same
        transposed: dict[str, str] = {}
        looked_up = {node.input[0] for node in self.proto.graph.node if node.op_type == "Gather"}
        for name, value in self.weights.items():
            if value.ndim == 2 and name not in renamed and name not in looked_up:
                others = kept.get(_sample(value.T), [])
                same = next((x for x in others if x in looked_up and np.array_equal(self.weights[x], value.T)), None)
                if same is not None:
                    transposed[name] = same
        for node in self.proto.graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)
        for name, other in transposed.items():
            node = helper.make_node("Transpose", [other], [name], f"{name}/tied", perm=[1, 0])
            self.proto.graph.node.insert(0, node)
        for name in (*renamed, *transposed):
            del self.weights[name]

    def save(self, folder: Path) -> None:
        """Writes `model.onnx`; weights of more than 600 MB go into a file beside it."""
        if self.bytes() <= _LARGEST_FILE:
            with (folder / MODEL_FILE).open("wb") as file:
                self._write_in_one(file)
        else:
            self._save_in_two(folder)

    def _save_in_two(self, folder: Path) -> None:
        slim = onnx.ModelProto()
        slim.CopyFrom(self.proto)
        with (folder / WEIGHTS_FILE).open("wb") as file:
            for name, value in self.weights.items():
                if value.nbytes >= _LARGE:
                    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                tensor = _header(name, value)
                tensor.data_location = TensorProto.EXTERNAL
                for key, entry in (("location", WEIGHTS_FILE), ("offset", file.tell()), ("length", value.nbytes)):
                    tensor.external_data.add(key=key, value=str(entry))
                slim.graph.initializer.append(tensor)
                _write(file, value)
                self.release_pages()
        (folder / MODEL_FILE).write_bytes(slim.SerializeToString())

    def _write_in_one(self, file: BinaryIO) -> None:
        """The bytes that the whole message would have; its weights are never in memory together.

        The fields of a message may stand in any order, so graph and weights follow what the protobuf library writes.
        """
        outer = onnx.ModelProto()
        outer.CopyFrom(self.proto)
        outer.ClearField("graph")
        graph = self.proto.graph.SerializeToString()
        heads = []
        for name, value in self.weights.items():
            head = _header(name, value).SerializeToString() + _field(_RAW_DATA, value.nbytes)
            heads.append(_field(_INITIALIZER, len(head) + value.nbytes) + head)
        length = len(graph) + sum(map(len, heads)) + sum(value.nbytes for value in self.weights.values())
        file.write(outer.SerializeToString() + _field(_GRAPH, length) + graph)
        for head, value in zip(heads, self.weights.values(), strict=True):
            file.write(head)
            _write(file, value)
            self.release_pages()

    def reloaded_from(self, convert: Any) -> WeightedGraph:
        """What a conversion of files makes of this graph.

        Args:
            convert: A function of the graph's path and the path that it writes.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            before, after = Path(folder) / "before", Path(folder) / "after"
            before.mkdir()
            after.mkdir()
            self.save(before)
            convert(before / MODEL_FILE, after / MODEL_FILE)
            converted = WeightedGraph.load(after / MODEL_FILE)
        converted.folder = self.folder
        return converted


def _array(tensor: TensorProto) -> Array:
    value: Array = numpy_helper.to_array(tensor)
    return value


def _mapped(tensor: TensorProto, folder: Path, files: dict[str, mmap.mmap]) -> Array:
    info = external_data_helper.ExternalDataInfo(tensor)
    if info.location not in files:
        with (folder / info.location).open("rb") as file:
            files[info.location] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    start, count = info.offset or 0, int(np.prod(tensor.dims))
    part: Array = np.frombuffer(files[info.location], np.uint8, count * dtype.itemsize, start)
    shaped: Array = part.view(dtype).reshape(tuple(tensor.dims))
    return shaped


def _sample(value: Array) -> tuple[Any, ...]:
    """What equal arrays share; others hardly ever."""
    corner = value[tuple(slice(0, 8) for _ in value.shape)]
    return value.shape, value.dtype.str, corner.tobytes()


def _header(name: str, value: Array) -> TensorProto:
    """A tensor without its values."""
    return TensorProto(name=name, dims=value.shape, data_type=helper.np_dtype_to_tensor_dtype(value.dtype))


def _pieces(value: Array) -> Iterator[Array]:
    """The array in parts of whole rows and at most some 64 MB."""
    rows = value if value.ndim else value.reshape(1)
    step = max(1, len(rows) * 2**26 // max(1, value.nbytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _write(file: BinaryIO, value: Array) -> None:
    for piece in _pieces(value):
        file.write(piece.tobytes())


def _field(number: int, length: int) -> bytes:
    """What precedes a field of bytes: its number with wire type 2, and its length, both as varints."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
