"""`trl-rrtf STAGE`: the command line. Thin: each stage's module does the work, and heavy imports happen inside it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trl_rrtf import __version__
from trl_rrtf.errors import ConfigError, TrlRrtfError
from trl_rrtf.options import read_yaml, require_mapping


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        summary: What it does, in a line.
        configs: `module:Class` of the dataclasses that its options fill, in the order of the function's arguments.
        function: `module:function` that does the work and returns a summary.
        help_configs: `module:Class` of the dataclasses that `--help` shows, where `configs` would import torch.
        help_note: What `--help` says of the options that it does not show.
        positional: Options that may be given without their names, in this order.
        launchable: Whether accelerate's options start it on several processes.
    """

    summary: str
    configs: tuple[str, ...]
    function: str
    help_configs: tuple[str, ...] = ()
    help_note: str = ""
    positional: tuple[str, ...] = ()
    launchable: bool = False


STAGES = {
    "evolve": Stage(
        "harder problems with tests, written by a teacher (Evol-Instruct)",
        (
            "trl_rrtf.evolving.config:EvolveArguments",
            "trl_rrtf.evolving.config:EvolveConfig",
            "trl_rrtf.evolving.config:TeacherConfig",
            "trl_rrtf.judging.config:JudgeConfig",
        ),
        "trl_rrtf.evolving.stage:run_evolve",
    ),
    "filter": Stage(
        "problems without duplicates, and without those of benchmarks",
        ("trl_rrtf.problems.config:FilterArguments", "trl_rrtf.problems.config:FilterConfig"),
        "trl_rrtf.problems.stage:run_filter",
    ),
    "sample": Stage(
        "candidates for each problem, from a student or a teacher model",
        (
            "trl_rrtf.sampling.config:SampleArguments",
            "trl_rrtf.sampling.config:SamplingConfig",
            "trl_rrtf.judging.config:JudgeConfig",
        ),
        "trl_rrtf.sampling.stage:run_sample_command",
    ),
    "teacher-logprobs": Stage(
        "a teacher model's log-probabilities of the candidates, for the ranking",
        ("trl_rrtf.sampling.config:TeacherLogProbsArguments", "trl_rrtf.sampling.config:TeacherLogProbsConfig"),
        "trl_rrtf.sampling.teacher_log_probs:run_teacher_log_probs",
    ),
    "judge": Stage(
        "a verdict for each candidate, from its unit tests",
        ("trl_rrtf.judging.config:JudgeArguments", "trl_rrtf.judging.config:JudgeConfig"),
        "trl_rrtf.judging.stage:run_judge",
    ),
    "rank": Stage(
        "scores and ranked groups, from verdicts and sources",
        ("trl_rrtf.ranking.config:RankArguments", "trl_rrtf.ranking.config:RankConfig"),
        "trl_rrtf.ranking.stage:run_rank",
    ),
    "train": Stage(
        "a checkpoint, from ranked groups",
        ("trl_rrtf.training.options:TrainArguments", "trl_rrtf.training.config:RRTFConfig", "trl:ModelConfig"),
        "trl_rrtf.training.stage:run_train",
        help_configs=("trl_rrtf.training.options:TrainArguments", "trl_rrtf.training.options:RRTFOptions"),
        help_note="Further options: every field of TRL's SFTConfig (--output_dir, --learning_rate, --num_train_epochs, "
        "--per_device_train_batch_size, --bf16 ...) and ModelConfig (--dtype, --use_peft, --lora_r, --load_in_4bit ...); "
        "`trl sft --help` lists them. Options of `accelerate launch` (--num_processes 8, --accelerate_config fsdp2 ...) "
        "start it on several processes.",
        launchable=True,
    ),
    "evaluate": Stage(
        "pass@k of a model on problems with tests",
        (
            "trl_rrtf.evaluation.config:EvaluateArguments",
            "trl_rrtf.sampling.config:SamplingConfig",
            "trl_rrtf.judging.config:JudgeConfig",
        ),
        "trl_rrtf.evaluation.stage:run_evaluate",
    ),
    "select": Stage(
        "one program per problem out of its candidates (best of n)",
        (
            "trl_rrtf.evaluation.config:SelectArguments",
            "trl_rrtf.evaluation.config:SelectConfig",
            "trl_rrtf.judging.config:JudgeConfig",
        ),
        "trl_rrtf.evaluation.select:run_select",
    ),
    "compare": Stage(
        "two evaluations of the same problems, side by side",
        ("trl_rrtf.evaluation.config:CompareArguments",),
        "trl_rrtf.evaluation.compare:run_compare",
        positional=("first", "second"),
        help_note="Shorter: trl-rrtf compare A.json B.json",
    ),
    "export": Stage(
        "an ONNX model, from a checkpoint: in any precision, compared with PyTorch",
        ("trl_rrtf.export.config:ExportArguments", "trl_rrtf.export.config:ExportConfig"),
        "trl_rrtf.export.stage:run_export",
    ),
    "push": Stage(
        "model, evaluations, ranked groups and export to the Hub, in a collection",
        ("trl_rrtf.publishing.config:PushConfig",),
        "trl_rrtf.publishing.stage:run_push",
    ),
    "generate": Stage(
        "texts for a prompt, from an exported model or a checkpoint",
        ("trl_rrtf.sampling.config:GenerateConfig",),
        "trl_rrtf.sampling.generate:run_generate",
    ),
}

_OTHER_COMMANDS = {
    "run": "all stages from one YAML file, resumable",
    "env": "versions, devices and isolation layers, for bug reports",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Command line without the program's name; by default that of the process.

    Returns:
        Exit status: 0 only if the work is done, 1 after an error that the message explains, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments.pop(0) if arguments else "--help"
    if command in ("-h", "--help"):
        print(_overview())
        return 0
    if command == "--version":
        print(__version__)
        return 0
    if command not in STAGES and command not in _OTHER_COMMANDS:
        print(
            f"trl-rrtf: `{command}` is no command; the commands are {', '.join([*STAGES, *_OTHER_COMMANDS])}", file=sys.stderr
        )
        return 2
    try:
        return _dispatch(command, arguments)
    except TrlRrtfError as error:
        print(f"trl-rrtf {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ntrl-rrtf {command}: interrupted; what is done is kept, run the same command to go on", file=sys.stderr)
        return 130


def _dispatch(command: str, arguments: list[str]) -> int:
    wants_help = "-h" in arguments or "--help" in arguments
    if command == "run":
        from trl_rrtf.pipeline import PipelineConfig, load_pipeline_config

        if wants_help:
            print(_help("run", _OTHER_COMMANDS["run"], [PipelineConfig], "Nested settings: --train.learning_rate 1e-5"))
            return 0
        config = load_pipeline_config(arguments)
        from trl_rrtf.pipeline.run import run_pipeline  # imports torch

        run_pipeline(config)
        return 0
    if command == "env":
        from trl_rrtf.environment import environment

        if wants_help:
            print(_help("env", _OTHER_COMMANDS["env"], [], ""))
        else:
            _print_table("environment", environment())
        return 0
    stage = STAGES[command]
    if wants_help:
        configs = [_load(name) for name in stage.help_configs or stage.configs]
        print(_help(command, stage.summary, configs, stage.help_note))
        return 0
    for name in stage.positional:
        at = 2 * stage.positional.index(name)
        if len(arguments) > at and not arguments[at].startswith("--"):
            arguments.insert(at, f"--{name}")
    configs, unknown = _parse(command, stage, arguments)
    if unknown:
        from trl_rrtf.training.launch import launch, split_launch_arguments

        launch(command, *split_launch_arguments(arguments, unknown))
        return 0
    _print_table(command, _load(stage.function)(*configs).table())
    return 0


def _parse(command: str, stage: Stage, arguments: list[str]) -> tuple[list[Any], list[str]]:
    """The stage's configurations, and the arguments that are accelerate's (an error in stages that it does not launch)."""
    from trl import TrlParser

    config_types = [_load(name) for name in stage.configs]
    parser = TrlParser(config_types, prog=f"trl-rrtf {command}", allow_abbrev=False)
    in_file, arguments = _take_config_file(arguments)
    aliases = {
        alias.removeprefix("--"): field.name
        for config_type in config_types
        for field in dataclasses.fields(config_type)
        for alias in field.metadata.get("aliases", ())
    }
    on_the_line = {argument.split("=")[0].removeprefix("--") for argument in arguments if argument.startswith("--")}
    for alias, name in aliases.items():
        if any({alias, name} <= given for given in (on_the_line, in_file.keys())):
            raise ConfigError(f"`{name}`: `{alias}` is another name of it, and both are given; leave one out")
    unknown = parser.set_defaults_with_config(**{aliases.get(name, name): value for name, value in in_file.items()})
    if unknown:
        raise ConfigError(f"`config`: the file has unknown options: {' '.join(unknown)}; see `trl-rrtf {command} --help`")
    try:
        parsed = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=stage.launchable)
    except ValueError as error:
        if isinstance(error, TrlRrtfError):
            raise
        raise ConfigError(str(error)) from error  # of TRL's and transformers' own checks
    configs, left_over = parsed[: len(config_types)], parsed[len(config_types) :]
    return list(configs), left_over[0] if left_over else []


def _take_config_file(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What the file after `--config` holds, and the other arguments; its `env` becomes environment variables, as in TRL."""
    if "--config" not in arguments:
        return {}, arguments
    place = arguments.index("--config")
    if place + 1 == len(arguments):
        raise ConfigError("`config`: got no value; give a YAML file")
    values = read_yaml(arguments[place + 1])
    variables = values.pop("env", {})
    require_mapping(variables, "env")
    os.environ.update({name: str(value) for name, value in variables.items()})
    return values, arguments[:place] + arguments[place + 2 :]


def _load(name: str) -> Any:
    """The object behind `module:name`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _overview() -> str:
    commands = {**{name: stage.summary for name, stage in STAGES.items()}, **_OTHER_COMMANDS}
    lines = [
        "usage: trl-rrtf COMMAND [--config FILE.yaml] [--field value ...]",
        "",
        "RRTF (PanGu-Coder2): align a code model with ranking feedback from unit tests and teachers.",
        "",
        *(f"  {name:<18}{summary}" for name, summary in commands.items()),
        "",
        "trl-rrtf COMMAND --help shows a command's options; trl-rrtf --version the version.",
    ]
    return "\n".join(lines)


def _help(command: str, summary: str, configs: Sequence[type], note: str) -> str:
    """The options of a command, from its dataclasses alone: TRL's parser would import torch and take seconds."""
    lines = [f"usage: trl-rrtf {command} [--config FILE.yaml] [--field value ...]", "", summary, ""]
    for config in configs:
        for option in dataclasses.fields(config):
            also = "".join(f", also {alias}" for alias in option.metadata.get("aliases", ()))
            lines.append(f"  --{option.name} ({_default(option)}{also})")
            help_text = option.metadata.get("help", "")
            choices = option.metadata.get("choices") or ()
            if any(choice not in help_text for choice in choices):
                help_text += f" One of: {', '.join(choices)}."
            lines += textwrap.wrap(help_text, width=100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    if note:
        lines += ["", *textwrap.wrap(note, width=100)]
    return "\n".join(lines)


def _default(option: dataclasses.Field[Any]) -> str:
    if option.default_factory is not dataclasses.MISSING:
        return f"default: {option.default_factory()!r}"
    return "required" if option.default is dataclasses.MISSING else f"default: {option.default!r}"


def _print_table(title: str, shown: dict[str, Any]) -> None:
    if os.environ.get("RANK", "0") != "0":  # one table for all processes of a launcher
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False)
    for label, value in shown.items():
        table.add_row(label, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
