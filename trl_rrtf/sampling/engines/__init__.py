"""What runs a model: one module per engine, and the table that knows them all.

A new engine is a module with a [`Sampler`][trl_rrtf.sampling.draws.Sampler], its options in `options.py`, and a line here.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.sampling.draws import Sampler
from trl_rrtf.sampling.engines.options import (
    EngineOptions,
    GenaiOptions,
    OnnxOptions,
    OpenAIOptions,
    TransformersOptions,
    VLLMOptions,
)


@dataclass(frozen=True)
class Engine:
    """An entry of the table.

    Attributes:
        summary: What it is, in a few words.
        options: The dataclass of its own options.
        maker: `module:function` (or class) that loads a model, given its name and the options; imported when it is needed.
        is_remote: Whether the model runs elsewhere: no folder here holds it, and no cluster is needed to run it.
    """

    summary: str
    options: type[EngineOptions]
    maker: str
    is_remote: bool = False

    def make(self, model: str, options: EngineOptions) -> Sampler:
        """Loads a model.

        Args:
            model: Folder or Hub id, or what an endpoint calls it.
            options: An object of the type `options`.

        Raises:
            LoadError: The model is not there.
            ConfigError: The engine's package is not installed, or what it needs is missing.
        """
        module, _, name = self.maker.partition(":")
        sampler: Sampler = getattr(importlib.import_module(module), name)(model, options)
        return sampler

    def options_in(self, config: Any) -> EngineOptions:
        """The engine's own options out of a flat configuration."""
        return self.options(**{field.name: getattr(config, field.name) for field in dataclasses.fields(self.options)})


ENGINES: dict[str, Engine] = {
    "transformers": Engine("a checkpoint, on this machine", TransformersOptions, f"{__name__}.transformers:load_sampler"),
    "vllm": Engine("a checkpoint, on this machine's GPU", VLLMOptions, f"{__name__}.vllm:VLLMSampler"),
    "openai": Engine("an endpoint", OpenAIOptions, f"{__name__}.openai:OpenAISampler", is_remote=True),
    "onnx": Engine("a folder that `trl-rrtf export` wrote", OnnxOptions, f"{__name__}.onnx:load_sampler"),
    "genai": Engine("such a folder, in onnxruntime-genai", GenaiOptions, f"{__name__}.genai:GenaiSampler"),
}
"""Name -> engine."""


def refuse_options_of_others(config: Any) -> None:
    """Refuses options that the engine of a configuration would ignore.

    Args:
        config: A flat configuration, with the field `engine` and the options of all engines.

    Raises:
        ConfigError: One that only other engines have is not at its default.
    """
    takers: dict[str, list[str]] = {}
    for name, engine in ENGINES.items():
        for field in dataclasses.fields(engine.options):
            takers.setdefault(field.name, []).append(name)
    for field in dataclasses.fields(config):
        names = takers.get(field.name)
        if names is not None and config.engine not in names and getattr(config, field.name) != field.default:
            raise ConfigError(
                f"`{field.name}`: is for the engine {_listed(names)}, and `engine` is {config.engine!r}; leave it out, or "
                "choose another engine"
            )


def _listed(names: list[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
