"""Settings of the `export` stage."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import check_options, option

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
HALF_PRECISIONS = ("fp16", "bf16")
INT8_METHODS = ("weight_only", "dynamic")
GRAPHS = ("fused", "plain")
DEVICES = ("cpu", "cuda")


@dataclass
class ExportArguments:
    """Folders of the `export` stage.

    Attributes:
        model: A checkpoint: full or sharded weights, or a PEFT adapter, which is merged first.
        output: Folder for the ONNX model.
        overwrite: Replace an earlier export; a folder that no export made is never replaced.
    """

    model: str = option("Checkpoint to export: a folder (also of a PEFT adapter), or a Hub id.", is_input=True)
    output: str = option(
        "Folder for the ONNX model; it appears whole, once its parity is proved.", is_output=True, decides_output=False
    )
    overwrite: bool = option(
        "Replace an earlier export; a folder that no export made is never replaced.", default=False, decides_output=False
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)


@dataclass
class ExportConfig:
    """How a checkpoint becomes an ONNX model.

    Attributes:
        precision: `fp32`; `fp16` and `bf16` (for CUDA); `int8`; `int4` (weights in blocks, embedding and LM head in int8).
        device: What the model is for.
        int8_method: `weight_only` (weights in blocks, activations rounded block by block) or `dynamic` (per-channel weights,
            activations rounded as a whole).
        block_size: Weights that share a scale, in `weight_only` int8 and int4.
        graph: `fused` (ONNX Runtime's `GroupQueryAttention` and `RotaryEmbedding`) or `plain` (as it is exported). By default
            fused for the CPU, and in `fp16` and `bf16`, which is what CUDA's fused attention computes in; else plain.
        parity_tokens: Tokens of the longest text that graph and checkpoint are compared on; None for one that passes the
            model's sliding windows and scaled lengths. Thousands of tokens take minutes for a model of a billion parameters.
        push_to_hub: Repository to push the exported folder to, or None.

    Raises:
        ConfigError: A value is out of range, or two of them contradict each other.
    """

    precision: str = option(f"One of {', '.join(PRECISIONS)}.", default="fp32", choices=PRECISIONS)
    device: str = option("What the model is for: cpu or cuda.", default="cpu", choices=DEVICES)
    int8_method: str = option(
        "weight_only (blocks; more exact) or dynamic (per-channel weights, activations rounded as a whole).",
        default="weight_only",
        choices=INT8_METHODS,
    )
    block_size: int = option("Weights that share a scale, in weight-only int8 and int4.", default=32)
    graph: str | None = option(
        "fused (GroupQueryAttention) or plain (as it is exported). Default: fused, but for cuda in fp32, int8 and int4.",
        default=None,
        choices=GRAPHS,
    )
    parity_tokens: int | None = option(
        "Tokens of the longest text that graph and checkpoint are compared on. Default: one that passes the model's windows.",
        default=None,
        at_least=64,
    )
    push_to_hub: str | None = option("Hub repository to push the exported folder to.", default=None, decides_output=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if self.block_size < 16 or self.block_size & (self.block_size - 1):
            raise ConfigError(f"`block_size`: expected a power of two from 16, got {self.block_size}")
        if self.precision in HALF_PRECISIONS and self.device == "cpu":
            raise ConfigError(
                f"`precision`: {self.precision} is for CUDA, ONNX Runtime's CPU provider computes fp16 in fp32 and slower, and "
                "has no bf16; add `--device cuda`, or choose fp32, int8 or int4"
            )
        if self.precision == "int8" and self.int8_method == "dynamic" and self.device == "cuda":
            raise ConfigError(
                "`int8_method`: the CUDA provider has no dynamic int8 matrix product; use `weight_only`, or `--device cpu`"
            )
        if self.graph == "fused" and not self._can_fuse:
            raise ConfigError(
                f"`graph`: CUDA's fused attention computes in fp16 and bf16, got `--precision {self.precision}`; use plain, or "
                "one of those"
            )

    @property
    def is_fused(self) -> bool:
        """Whether attention is fused."""
        return self.graph == "fused" or (self.graph is None and self._can_fuse)

    @property
    def _can_fuse(self) -> bool:
        return self.device == "cpu" or self.precision in HALF_PRECISIONS
