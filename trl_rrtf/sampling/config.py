"""Settings of a sampler and files of the `sample` stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl_rrtf.errors import ConfigError
from trl_rrtf.prompts import PROMPT_STYLES

ENGINES = ("transformers", "vllm", "openai", "onnx")
"""Names of the sampling engines."""

MODEL_SOURCES = ("student", "teacher")
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")


@dataclass
class SampleArguments:
    """Files of the `sample` stage.

    Attributes:
        problems: Problems, or candidate groups, to whose candidates the new ones are added.
        output: Candidate groups, `.jsonl` or `.parquet`.
        where: Which problems, such as `split=train`.
        limit: The first so many problems.
        overwrite: Throw away an earlier output.
        models: Further models of the same source, for candidates in the same run.
        temperatures: Temperatures at which each model draws `num_generations` candidates (one, at 0), instead of `temperature`.
        deduplicate: Whether equal programs of a problem are kept once.
        cluster: A Ray cluster whose machines draw; by default this one does.

    Raises:
        ConfigError: A value is out of range.
    """

    problems: str = field(
        metadata={
            "help": "Problems: a file, a Hub data set id, or `humaneval`. Candidate groups pass too: the new candidates are "
            "added to theirs, so that a teacher's run over the student's output holds both."
        }
    )
    output: str = field(metadata={"help": "Where the candidate groups go (.jsonl or .parquet)."})
    where: str | None = field(default=None, metadata={"help": "Only problems with this value, such as `split=train`."})
    limit: int | None = field(default=None, metadata={"help": "Only the first so many problems."})
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier output."})
    models: list[str] = field(
        default_factory=list,
        metadata={"help": "Further models of the same source and engine: each draws candidates in the same run."},
    )
    temperatures: list[float] = field(
        default_factory=list,
        metadata={"help": "Each model draws num_generations candidates at each of these, instead of at --temperature."},
    )
    deduplicate: bool = field(default=False, metadata={"help": "Keep equal programs of a problem once."})
    cluster: str | None = field(
        default=None,
        metadata={
            "help": "Draw on the machines of a Ray cluster: `auto`, `host:port` or `local`; by default on this one. Each "
            "needs the model under the same name."
        },
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        if len(set(self.temperatures)) < len(self.temperatures) or any(value < 0 for value in self.temperatures):
            raise ConfigError(f"`temperatures`: expected different numbers, 0 or more, got {self.temperatures}")


@dataclass
class SamplingConfig:
    """Which model, and how its candidates are drawn.

    Attributes:
        model: Folder or Hub id.
        source: Whether the model is a `student` or a `teacher`.
        engine: What runs the model: `transformers`, `vllm`, `openai` for an endpoint, `onnx` for a folder that `trl-rrtf
            export` wrote.
        device: `cpu` or `cuda`, for the engine `onnx`; by default CUDA where it is.
        num_generations: Candidates per problem.
        temperature: 0 is greedy.
        top_p: Nucleus.
        top_k: Only the so many likeliest tokens, or 0 for all.
        max_new_tokens: Longest candidate.
        prompt_style: How the problem becomes the prompt.
        stop_strings: A candidate ends before the first of them.
        batch_size: Problems per batch; batches hold problems of like length.
        dtype: Precision of the weights.
        seed: Each candidate has a seed of its own, made from this one, the problem, the model and its number.
        include_reference: Whether the reference solution is added as a teacher's candidate.
        base_url: Address of an endpoint.
        api_key_env: Environment variable that holds the endpoint's key.
        max_concurrency: Requests to an endpoint at once.
        requests_per_minute: Requests that an endpoint allows, 0 for no limit.
        max_retries: How often a request that failed is repeated.
        request_timeout: Seconds that a request may take.
        input_price: Price of a million prompt tokens.
        output_price: Price of a million completion tokens.

    Raises:
        ConfigError: A value is out of range, or two contradict each other.
    """

    model: str = field(metadata={"help": "Model to sample from: a folder, or a Hub id."})
    source: str = field(default="student", metadata={"help": "What the model is.", "choices": list(MODEL_SOURCES)})
    engine: str = field(default="transformers", metadata={"help": "What runs the model.", "choices": list(ENGINES)})
    device: str | None = field(
        default=None, metadata={"help": "For the engine onnx: cpu or cuda. Default: cuda where it is, else cpu."}
    )
    num_generations: int = field(default=8, metadata={"help": "Candidates per problem."})
    temperature: float = field(default=0.8, metadata={"help": "Sampling temperature; 0 is greedy."})
    top_p: float = field(default=0.95, metadata={"help": "Nucleus: the smallest set of tokens with this probability."})
    top_k: int = field(
        default=0,
        metadata={"help": "Only the so many likeliest tokens; 0 for all. Much cheaper than a nucleus on a CPU (no sort)."},
    )
    max_new_tokens: int = field(default=512, metadata={"help": "Longest candidate, in tokens."})
    prompt_style: str = field(
        default="chat",
        metadata={
            "help": "How the problem becomes the prompt; `paper` puts it in triple quotes.",
            "choices": list(PROMPT_STYLES),
        },
    )
    stop_strings: list[str] = field(default_factory=list, metadata={"help": "A candidate ends before the first of these."})
    batch_size: int = field(default=8, metadata={"help": "Problems per batch; a batch holds this * num_generations rows."})
    dtype: str = field(default="auto", metadata={"help": "Precision of the weights.", "choices": list(DTYPES)})
    seed: int = field(default=42, metadata={"help": "The same seed gives the same candidates."})
    include_reference: bool = field(
        default=False, metadata={"help": "Add each problem's reference solution as a teacher's candidate."}
    )
    base_url: str | None = field(
        default=None, metadata={"help": "For the engine openai: the endpoint's address. Default: OpenAI's."}
    )
    api_key_env: str = field(
        default="OPENAI_API_KEY", metadata={"help": "For the engine openai: environment variable with the key."}
    )
    max_concurrency: int = field(default=16, metadata={"help": "For the engine openai: requests at once."})
    requests_per_minute: float = field(
        default=0, metadata={"help": "For the engine openai: requests that it allows in a minute; 0 for no limit."}
    )
    max_retries: int = field(default=6, metadata={"help": "For the engine openai: repetitions of a request that failed."})
    request_timeout: float = field(default=300, metadata={"help": "For the engine openai: seconds that a request may take."})
    input_price: float = field(default=0, metadata={"help": "For the engine openai: price of a million prompt tokens."})
    output_price: float = field(default=0, metadata={"help": "For the engine openai: price of a million completion tokens."})

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, choices in (
            ("source", MODEL_SOURCES),
            ("engine", ENGINES),
            ("device", (*DEVICES, None)),
            ("prompt_style", tuple(PROMPT_STYLES)),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"`{name}`: expected one of {', '.join(map(str, choices))}, got {getattr(self, name)!r}")
        for name in ("num_generations", "max_new_tokens", "batch_size", "max_concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}`: expected at least 1, got {getattr(self, name)}")
        for name in ("requests_per_minute", "max_retries", "input_price", "output_price"):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}`: expected 0 or more, got {getattr(self, name)}")
        if self.request_timeout <= 0:
            raise ConfigError(f"`request_timeout`: expected more than 0 seconds, got {self.request_timeout}")
        if self.base_url is not None and self.engine != "openai":
            raise ConfigError(f"`base_url`: only the engine openai has an address, got engine {self.engine!r}")
        if self.temperature < 0:
            raise ConfigError(f"`temperature`: expected 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"`top_p`: expected a number above 0 and up to 1, got {self.top_p}")
        if self.top_k < 0:
            raise ConfigError(f"`top_k`: expected a number of tokens, or 0 for all, got {self.top_k}")
        if self.temperature == 0 and self.num_generations > 1:
            raise ConfigError(
                f"`num_generations`: greedy sampling (`temperature=0`) gives one candidate, got {self.num_generations}; "
                "set it to 1 or raise the temperature"
            )
