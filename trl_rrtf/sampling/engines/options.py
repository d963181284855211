"""The options that each engine has for itself; light, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.options import check_options, option

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Precisions of a model's weights; `auto` is that of its files."""

DEVICES = ("cpu", "cuda")
"""Where a model on this machine runs."""


@dataclass(kw_only=True)
class EngineOptions:
    """Base of the engines' options.

    Raises:
        ConfigError: A value is of a wrong type or out of range.
    """

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)


@dataclass(kw_only=True)
class WeightsOptions(EngineOptions):
    """Of the engines that load a checkpoint's weights.

    Attributes:
        dtype: Precision of the weights, one of [`DTYPES`][trl_rrtf.sampling.engines.options.DTYPES].
    """

    dtype: str = option("For transformers and vllm: precision of the weights.", default="auto", choices=DTYPES)


@dataclass(kw_only=True)
class DeviceOptions(EngineOptions):
    """Of the engines that run on a CPU as well as on a GPU.

    Attributes:
        device: `cpu` or `cuda`, or None for CUDA where it is.
    """

    device: str | None = option(
        "For transformers, onnx and genai: cpu or cuda. Default: cuda where it is, else cpu.", default=None, choices=DEVICES
    )


@dataclass(kw_only=True)
class TransformersOptions(WeightsOptions, DeviceOptions):
    """Of the engine `transformers`."""


@dataclass(kw_only=True)
class VLLMOptions(WeightsOptions):
    """Of the engine `vllm`.

    Attributes:
        tensor_parallel_size: GPUs that share the weights of one model.
        gpu_memory_utilization: Share of each GPU's memory that vLLM takes, for weights and cache.
        max_model_len: Longest prompt and candidate together, in tokens, or None for the model's own.
    """

    tensor_parallel_size: int = option(
        "For vllm: GPUs that share one model's weights.", default=1, at_least=1, decides_output=False
    )
    gpu_memory_utilization: float = option(
        "For vllm: share of each GPU's memory that it takes, for weights and cache.",
        default=0.9,
        above=0,
        at_most=1,
        decides_output=False,
    )
    max_model_len: int | None = option(
        "For vllm: longest prompt and candidate together, in tokens; less needs less memory. Default: the model's own.",
        default=None,
        at_least=2,
        decides_output=False,
    )


@dataclass(kw_only=True)
class OnnxOptions(DeviceOptions):
    """Of the engine `onnx`."""


@dataclass(kw_only=True)
class GenaiOptions(DeviceOptions):
    """Of the engine `genai`."""


@dataclass(kw_only=True)
class OpenAIOptions(EngineOptions):
    """Of the engine `openai`; none of them changes what is written.

    Attributes:
        base_url: Address of an endpoint, or None for OpenAI's.
        api_key_env: Environment variable that holds the endpoint's key.
        max_concurrency: Requests at once.
        requests_per_minute: Requests that an endpoint allows, 0 for no limit.
        max_retries: How often a request that failed is repeated.
        request_timeout: Seconds that a request may take.
        input_price: Price of a million prompt tokens.
        output_price: Price of a million completion tokens.
    """

    base_url: str | None = option("For openai: the endpoint's address. Default: OpenAI's.", default=None, decides_output=False)
    api_key_env: str = option("For openai: environment variable with the key.", default="OPENAI_API_KEY", decides_output=False)
    max_concurrency: int = option("For openai: requests at once.", default=16, at_least=1, decides_output=False)
    requests_per_minute: float = option(
        "For openai: requests that it allows in a minute; 0 for no limit.", default=0, at_least=0, decides_output=False
    )
    max_retries: int = option("For openai: repetitions of a request that failed.", default=6, at_least=0, decides_output=False)
    request_timeout: float = option("For openai: seconds that a request may take.", default=300, above=0, decides_output=False)
    input_price: float = option("For openai: price of a million prompt tokens.", default=0, at_least=0, decides_output=False)
    output_price: float = option(
        "For openai: price of a million completion tokens.", default=0, at_least=0, decides_output=False
    )
