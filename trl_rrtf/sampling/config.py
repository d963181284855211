"""Settings of a sampler, and files of the stages that ask a model; light, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import check_options, option
from trl_rrtf.problems.config import SKIP_UNUSABLE
from trl_rrtf.rows.prompts import PROMPT_STYLES
from trl_rrtf.sampling.engines import ENGINES, refuse_options_of_others
from trl_rrtf.sampling.engines.options import (
    DEVICES,
    DTYPES,
    GenaiOptions,
    OnnxOptions,
    OpenAIOptions,
    TransformersOptions,
    VLLMOptions,
)

MODEL_SOURCES = ("student", "teacher")
"""What a model may be."""


@dataclass
class SampleArguments:
    """Files of the `sample` stage.

    Attributes:
        input: Problems, or candidate groups, to whose candidates the new ones are added.
        output: Candidate groups, `.jsonl` or `.parquet`.
        where: Which problems, such as `split=train`.
        limit: Only the first `limit` problems.
        overwrite: Throw away an earlier output.
        models: Further models of the same source, for candidates in the same run.
        temperatures: Temperatures at which each model draws `num_generations` candidates (one, at 0), instead of `temperature`.
        deduplicate: Whether equal programs of a problem are kept once.
        repair_turns: How many times a candidate that fails its public tests is shown the failure and rewritten by its model.
        public_tests: How many tests of a problem are public (those that come first), where its row has no column of that name.
        skip_unusable: Whether rows that are no problems are passed over, as in [`load_problems`][trl_rrtf.load_problems].
        cluster: A Ray cluster whose machines draw; by default this one does.

    Raises:
        ConfigError: A value is of a wrong type or out of range.
    """

    input: str = option(
        "Problems: a file, a Hub data set id, or `humaneval`. Candidate groups pass too: the new candidates are added to "
        "theirs, so that a teacher's run over the student's output holds both.",
        is_input=True,
        aliases=("--problems",),
    )
    output: str = option("Where the candidate groups go (.jsonl or .parquet).", is_output=True, decides_output=False)
    where: str | None = option("Only problems with this value, such as `split=train`.", default=None)
    limit: int | None = option("Only the first `limit` problems.", default=None, at_least=1)
    overwrite: bool = option("Throw away an earlier output.", default=False, decides_output=False)
    models: list[str] = option(
        "Further models of the same source and engine: each draws candidates in the same run.",
        default_factory=list,
        is_input=True,
    )
    temperatures: list[float] = option(
        "Each model draws num_generations candidates at each of these, instead of at --temperature.",
        default_factory=list,
        at_least=0,
    )
    deduplicate: bool = option("Keep equal programs of a problem once.", default=False)
    repair_turns: int = option(
        "How many times a candidate that fails its public tests is shown the failure and rewritten by its model. The group "
        "holds all versions. The options of `trl-rrtf judge` say how programs are run.",
        default=0,
        at_least=0,
    )
    public_tests: int | None = option(
        "How many of a problem's tests, from the first on, are public, where its row has no column `public_tests`. Default: "
        "none of those rows' tests.",
        default=None,
        at_least=0,
    )
    skip_unusable: bool | None = option(SKIP_UNUSABLE, default=None)
    cluster: str | None = option(
        "Draw on the machines of a Ray cluster: `auto`, `host:port` or `local`; by default on this one. Each needs the model "
        "under the same name.",
        default=None,
        decides_output=False,
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ConfigError(f"`temperatures`: expected different numbers, got {self.temperatures}; give each once")


@dataclass
class DrawOptions:
    """The part of [`SamplingConfig`][trl_rrtf.SamplingConfig] that every engine knows."""

    model: str = option("Model to sample from: a folder, or a Hub id.", is_input=True)
    source: str = option("What the model is.", default="student", choices=MODEL_SOURCES)
    engine: str = option(
        f"What runs the model: {', '.join(f'{name} ({engine.summary})' for name, engine in ENGINES.items())}.",
        default="transformers",
        choices=tuple(ENGINES),
    )
    num_generations: int = option("Candidates per problem.", default=8, at_least=1)
    temperature: float = option("Sampling temperature; 0 is greedy.", default=0.8, at_least=0)
    top_p: float = option("Nucleus: the smallest set of tokens with this probability.", default=0.95, above=0, at_most=1)
    top_k: int = option(
        "Only the `top_k` likeliest tokens; 0 for all. Much cheaper than a nucleus on a CPU (no sort).", default=0, at_least=0
    )
    max_new_tokens: int = option("Longest candidate, in tokens.", default=512, at_least=1)
    prompt_style: str = option(
        "How the problem becomes the prompt; `paper` puts it in triple quotes.", default="chat", choices=tuple(PROMPT_STYLES)
    )
    stop_strings: list[str] = option("A candidate ends before the first of these.", default_factory=list)
    batch_size: int = option("Problems per batch; a batch holds this * num_generations rows.", default=8, at_least=1)
    seed: int = option("The same seed gives the same candidates.", default=42)
    include_reference: bool = option("Add each problem's reference solution as a teacher's candidate.", default=False)


@dataclass
class SamplingConfig(OpenAIOptions, GenaiOptions, OnnxOptions, VLLMOptions, TransformersOptions, DrawOptions):
    """Which model, and how its candidates are drawn; then the options that only some engines have.

    Attributes:
        model: Folder or Hub id.
        source: Whether the model is a `student` or a `teacher`.
        engine: What runs the model: `transformers`, `vllm`, `openai` for an endpoint, `onnx` for a folder that `trl-rrtf
            export` wrote, `genai` for the same in onnxruntime-genai.
        num_generations: Candidates per problem.
        temperature: 0 is greedy.
        top_p: Nucleus.
        top_k: Only the `top_k` likeliest tokens, or 0 for all.
        max_new_tokens: Longest candidate, in tokens.
        prompt_style: How the problem becomes the prompt.
        stop_strings: A candidate ends before the first of them.
        batch_size: Problems per batch; batches hold problems of like length.
        seed: Each candidate has a seed of its own, made from this one, the problem, the model and its number.
        include_reference: Whether the reference solution is added as a teacher's candidate.
        dtype: Precision of the weights, for the engines `transformers` and `vllm`.
        tensor_parallel_size: GPUs that share one model's weights. This and the two that follow are for the engine `vllm`.
        gpu_memory_utilization: Share of each GPU's memory that it takes.
        max_model_len: Longest prompt and candidate together, in tokens, or None for the model's own.
        device: `cpu` or `cuda`, for the engines `transformers`, `onnx` and `genai`; by default CUDA where it is.
        base_url: Address of an endpoint. This and the following are for the engine `openai`.
        api_key_env: Environment variable that holds the endpoint's key.
        max_concurrency: Requests to an endpoint at once.
        requests_per_minute: Requests that an endpoint allows, 0 for no limit.
        max_retries: How often a request that failed is repeated.
        request_timeout: Seconds that a request may take.
        input_price: Price of a million prompt tokens.
        output_price: Price of a million completion tokens.

    Raises:
        ConfigError: A value is of a wrong type or out of range, two contradict each other, or one is another engine's.
    """

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        refuse_options_of_others(self)
        _check_greedy(self.temperature, self.num_generations)


def _check_greedy(temperature: float, num_generations: int) -> None:
    if temperature == 0 and num_generations > 1:
        raise ConfigError(
            f"`num_generations`: greedy sampling (`temperature=0`) gives one candidate, got {num_generations}; set it to 1 or "
            "raise the temperature"
        )


@dataclass
class GenerateConfig:
    """A prompt and how it is answered.

    Attributes:
        model: An exported ONNX model or a checkpoint: a folder, or a Hub id.
        prompt: The prompt.
        chat: Whether the prompt becomes a user's message in the model's chat template; by default where it has one.
        engine: `transformers`, `onnx` or `genai`; by default `onnx` for an exported model, else `transformers`.
        device: `cpu` or `cuda`; by default CUDA where it is.
        num_generations: How many texts.
        max_new_tokens: Longest text, in tokens.
        temperature: 0 is greedy.
        top_p: Nucleus.
        seed: The same seed gives the same texts.
        stop_strings: A text ends before the first of them.
        stream: Whether a text is shown as it is written; by default on a terminal, where there is one text.

    Raises:
        ConfigError: A value is of a wrong type or out of range, or two contradict each other.
    """

    model: str = option("An exported ONNX model or a checkpoint: a folder, or a Hub id.", is_input=True)
    prompt: str = option("The prompt.")
    chat: bool | None = option("Put the prompt into the model's chat template. Default: where the model has one.", default=None)
    engine: str | None = option(
        "What runs the model. Default: onnx for an exported model, else transformers.",
        default=None,
        choices=("transformers", "onnx", "genai"),
    )
    device: str | None = option("cpu or cuda. Default: cuda where it is, else cpu.", default=None, choices=DEVICES)
    num_generations: int = option("How many texts.", default=1, at_least=1)
    max_new_tokens: int = option("Longest text, in tokens.", default=256, at_least=1)
    temperature: float = option("0 is greedy.", default=0.0, at_least=0)
    top_p: float = option("Nucleus.", default=1.0, above=0, at_most=1)
    seed: int = option("The same seed gives the same texts.", default=0)
    stop_strings: list[str] = option("A text ends before the first of these.", default_factory=list)
    stream: bool | None = option(
        "Show the text as it is written. Default: on a terminal, where there is one text.", default=None
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        _check_greedy(self.temperature, self.num_generations)
        if self.stream and self.num_generations > 1:
            raise ConfigError(
                f"`stream`: shows one text, and `num_generations` is {self.num_generations}; leave one of them out"
            )


@dataclass
class TeacherLogProbsArguments:
    """Files of the `teacher-logprobs` stage.

    Attributes:
        input: Candidate groups.
        output: The same with a further column, `.jsonl` or `.parquet`.
        overwrite: Throw away an earlier output.

    Raises:
        ConfigError: A value is of a wrong type.
    """

    input: str = option("Candidate groups: a file, or a Hub data set id.", is_input=True)
    output: str = option(
        "Where they go, with the column `teacher_log_probs` (.jsonl or .parquet).", is_output=True, decides_output=False
    )
    overwrite: bool = option("Throw away an earlier output.", default=False, decides_output=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)


@dataclass
class TeacherLogProbsConfig:
    """Which teacher, and how it reads the candidates.

    Attributes:
        model: Folder or Hub id.
        prompt_style: How the problem becomes the prompt.
        dtype: Precision of the weights.
        batch_size: Candidates per forward pass.

    Raises:
        ConfigError: A value is of a wrong type or out of range.
    """

    model: str = option("The teacher: a folder, or a Hub id.", is_input=True)
    prompt_style: str = option("How the problem becomes the prompt.", default="chat", choices=tuple(PROMPT_STYLES))
    dtype: str = option("Precision of the weights.", default="auto", choices=DTYPES)
    batch_size: int = option("Candidates per forward pass.", default=8, at_least=1)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
