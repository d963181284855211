"""Settings of the judge and files of its stage."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.options import check_options, option

ISOLATION_PROPERTIES = {
    "memory": "no more memory in use than `memory_mb`, and none that no limit counts",
    "processes": "no process of its own, and none that outlives its worker",
    "network": "no network, loopback included",
    "files": "no writing outside the scratch folder, and no change of modes, times, owners and attributes",
    "metadata": "no sight of the names, sizes and modes of the user's files",
    "disk": "a bounded scratch folder",
    "secrets": "no reading of the user's files, environment and memory",
    "signals": "no signals to other processes, and no change of their priority, cores and limits",
    "kernel": "no tracing, namespaces and other kernel interfaces",
}
"""What can be required of the system a judge runs on. Time limits and the separate checker process are always there."""


@dataclass
class JudgeArguments:
    """Files of the `judge` stage.

    Attributes:
        input: Candidate groups.
        output: Judged groups, `.jsonl` or `.parquet`.
        overwrite: Throw away an earlier output.
        cluster: A Ray cluster whose machines judge; by default this one does.

    Raises:
        ConfigError: A value is of a wrong type.
    """

    input: str = option("Candidate groups: a file, or a Hub data set id.", is_input=True)
    output: str = option("Where the judged groups go (.jsonl or .parquet).", is_output=True, decides_output=False)
    overwrite: bool = option("Throw away an earlier output.", default=False, decides_output=False)
    cluster: str | None = option(
        "Judge on the machines of a Ray cluster: `auto`, `host:port` or `local`; by default on this one.",
        default=None,
        decides_output=False,
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)


_ENOUGH_TO_COUNT = 20
"""Programs after which the share of failures of the judge is taken seriously."""


@dataclass
class JudgeConfig:
    """Limits of a candidate's process, and when a run of the judge stops.

    Attributes:
        timeout: Seconds for all test code of a problem (`assert` and `check`), for each `call`, and for each run of a whole
            program (`stdio`): wall-clock time, less what a busy machine kept the program waiting.
        memory_mb: Memory that a program may use, in MiB; what the stacks of its threads reserve does not count.
        max_output_bytes: Largest file (and standard output) that the program may write, in bytes.
        num_workers: Programs that run side by side, or None for one per usable core.
        number_tolerance: How far apart two numbers may be in the output of a program or in the result of a `call`, relative to
            the larger, as graders of published problems have it; 0 compares exactly.
        stop_at_first_failure: Leave the tests after the first failure unjudged.
        second_run: Run each program twice, to find those whose results change.
        required_isolation: Names from [`ISOLATION_PROPERTIES`][trl_rrtf.judging.config.ISOLATION_PROPERTIES] that must hold on
            this system; the judge refuses to start otherwise.
        retries: How often a failure of the judge itself is tried again.
        max_infrastructure_fraction: Above this share of such failures a run stops.

    Raises:
        ConfigError: A value is of a wrong type or out of range.
    """

    timeout: float = option(
        "Seconds for all test code of a problem, for each call, and for each run of a whole program.",
        default=5.0,
        above=0,
        at_most=86_400,  # a day: what waits for a program cannot wait for ever
    )
    memory_mb: int = option("Memory that a program may use, in MiB.", default=1024, at_least=32, at_most=2**24)
    max_output_bytes: int = option(
        "Largest file that a program may write, in bytes.", default=1_000_000, at_least=1, at_most=2**40
    )
    num_workers: int | None = option(
        "Programs side by side; by default one per usable core.", default=None, at_least=1, decides_output=False
    )
    number_tolerance: float = option(
        "How far apart numbers may be in outputs of programs and results of `call` tests, relative to the larger; 0: the "
        "same text, line by line.",
        default=1e-6,
        at_least=0,
        at_most=1,
    )
    stop_at_first_failure: bool = option(
        "Stop at the first test that fails: faster, but `partial` counts only what came before.", default=False
    )
    second_run: bool = option(
        "Judge each program twice; of two different verdicts the lower counts, and its detail says `flaky`.", default=False
    )
    required_isolation: list[str] = option(
        f"What the system must provide, or the judge refuses to start: {', '.join(ISOLATION_PROPERTIES)}. "
        "`trl-rrtf env` shows what it does provide.",
        default_factory=list,
        choices=tuple(ISOLATION_PROPERTIES),
        decides_output=False,
    )
    retries: int = option(
        "How often a failure of the judge itself is tried again.", default=2, at_least=0, decides_output=False
    )
    max_infrastructure_fraction: float = option(
        "The run stops with an error above this share of candidates that could not be judged.",
        default=0.05,
        at_least=0,
        at_most=1,
        decides_output=False,
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)

    def are_too_many(self, not_judged: int, programs: int) -> bool:
        """Whether a run stops: its share of programs that could not be judged is above `max_infrastructure_fraction`.

        Args:
            not_judged: Those that could not be judged so far.
            programs: All so far; below 20 the share says nothing yet.
        """
        return programs >= _ENOUGH_TO_COUNT and not_judged > self.max_infrastructure_fraction * programs
