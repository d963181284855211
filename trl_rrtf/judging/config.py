"""Settings of the judge and files of its stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl_rrtf.errors import ConfigError

ISOLATION_PROPERTIES = {
    "memory": "no more memory than `memory_mb`, and none that no limit counts",
    "processes": "no process of its own",
    "network": "no network, loopback included",
    "files": "no writing outside the scratch folder",
    "disk": "a bounded scratch folder",
    "secrets": "no reading of the user's files, environment and memory",
    "signals": "no signals to other processes",
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
    """

    input: str = field(metadata={"help": "Candidate groups: a file, or a Hub data set id."})
    output: str = field(metadata={"help": "Where the judged groups go (.jsonl or .parquet)."})
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier output."})
    cluster: str | None = field(
        default=None,
        metadata={"help": "Judge on the machines of a Ray cluster: `auto`, `host:port` or `local`; by default on this one."},
    )


@dataclass
class JudgeConfig:
    """Limits of a candidate's process, and when a run of the judge stops.

    Attributes:
        timeout: Wall-clock seconds for all tests of a program's functions, and for each run of a whole program (`stdio`).
        memory_mb: Address space of the program, in MiB.
        max_output_bytes: Largest file (and standard output) that the program may write, in bytes.
        num_workers: Programs that run side by side, or None for one per usable core.
        stop_at_first_failure: Leave the tests after the first failure unjudged.
        second_run: Run each program twice, to find those whose results change.
        required_isolation: Names from [`ISOLATION_PROPERTIES`][trl_rrtf.judging.config.ISOLATION_PROPERTIES] that must hold on
            this system; the judge refuses to start otherwise.
        retries: How often a failure of the judge itself is tried again.
        max_infrastructure_fraction: Above this share of such failures a run stops.

    Raises:
        ConfigError: A value is out of range.
    """

    timeout: float = field(
        default=5.0,
        metadata={"help": "Wall-clock seconds for all tests of a program's functions, or for each run of a whole program."},
    )
    memory_mb: int = field(default=1024, metadata={"help": "Address space of a program, in MiB."})
    max_output_bytes: int = field(default=1_000_000, metadata={"help": "Largest file that a program may write, in bytes."})
    num_workers: int | None = field(default=None, metadata={"help": "Programs side by side; by default one per usable core."})
    stop_at_first_failure: bool = field(
        default=False,
        metadata={"help": "Stop at the first test that fails: faster, but `partial` counts only what came before."},
    )
    second_run: bool = field(
        default=False,
        metadata={"help": "Judge each program twice; of two different verdicts the lower counts, and its detail says `flaky`."},
    )
    required_isolation: list[str] = field(
        default_factory=list,
        metadata={
            "help": f"What the system must provide, or the judge refuses to start: {', '.join(ISOLATION_PROPERTIES)}. "
            "`trl-rrtf env` shows what it does provide."
        },
    )
    retries: int = field(default=2, metadata={"help": "How often a failure of the judge itself is tried again."})
    max_infrastructure_fraction: float = field(
        default=0.05, metadata={"help": "The run stops with an error above this share of candidates that could not be judged."}
    )

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name, lowest in (("timeout", 0.0), ("memory_mb", 31), ("max_output_bytes", 0), ("retries", -1)):
            if not getattr(self, name) > lowest:
                raise ConfigError(f"`{name}`: expected a number above {lowest}, got {getattr(self, name)}")
        unknown = [name for name in self.required_isolation if name not in ISOLATION_PROPERTIES]
        if unknown:
            raise ConfigError(
                f"`required_isolation`: expected some of {', '.join(ISOLATION_PROPERTIES)}, got {', '.join(unknown)}"
            )
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"`num_workers`: expected at least 1, or nothing for one per core, got {self.num_workers}")
        if not 0 <= self.max_infrastructure_fraction <= 1:
            raise ConfigError(
                f"`max_infrastructure_fraction`: expected a share from 0 to 1, got {self.max_infrastructure_fraction}"
            )
