"""`trl-rrtf train` on several processes: accelerate's options are taken out, and the same command is launched with them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from trl_rrtf.errors import ConfigError


def split_launch_arguments(arguments: Sequence[str], unknown: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes what the stage does not know out of a command line, as options of `accelerate launch`.

    Args:
        arguments: The command line of the stage.
        unknown: The part of it, in order, that the stage's parser does not know.

    Returns:
        The options of `accelerate launch`, and those of the stage.

    Raises:
        ConfigError: `accelerate launch` does not know them either, or `--accelerate_config` names no configuration.
    """
    stage_arguments = list(arguments)
    for argument in unknown:
        stage_arguments.remove(argument)
    return _accelerate_options(list(unknown)), stage_arguments


def _accelerate_options(options: list[str]) -> list[str]:
    from accelerate.commands.launch import launch_command_parser

    if "--accelerate_config" in options:
        place = options.index("--accelerate_config")
        if place + 1 == len(options):
            raise ConfigError("`accelerate_config`: got no value; give a file, or a name such as fsdp2")
        options[place : place + 2] = ["--config_file", str(_config_file(options[place + 1]))]
    # A stand-in for the script, which the parser demands.
    _, foreign = launch_command_parser().parse_known_args([*options, "script"])
    left_over = [option for option in options if option.startswith("--") and option in foreign]
    if left_over or not options[0].startswith("--"):
        raise ConfigError(
            f"`{left_over[0] if left_over else options[0]}` is no option of this stage or of `accelerate launch`; see --help"
        )
    return options


def _config_file(name: str) -> Path:
    """A file, or one of the configurations that TRL brings."""
    if Path(name).is_file():
        return Path(name)
    folder = Path(str(resources.files("trl"))) / "accelerate_configs"
    found = folder / f"{name}.yaml"
    if not found.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ConfigError(f"`accelerate_config`: `{name}` is no file and none of {known}")
    return found


def launch(command: str, launch_options: Sequence[str], stage_arguments: Sequence[str]) -> None:
    """Runs `accelerate launch OPTIONS -m trl_rrtf.cli COMMAND ARGUMENTS`; a failed process ends this one with its status.

    Raises:
        ConfigError: The options ask for more processes than would be started.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser

    parsed = launch_command_parser().parse_args([*launch_options, "--module", "trl_rrtf.cli", command, *stage_arguments])
    _start_as_many_as_asked(parsed)
    launch_command(parsed)


def _start_as_many_as_asked(parsed: argparse.Namespace) -> None:
    """Accelerate starts one process where there are not two GPUs, however many were asked for, without a word."""
    if parsed.cpu and parsed.config_file is not None:
        raise ConfigError("`cpu`: accelerate starts one process with `--cpu` and a configuration file; leave one of them out")
    engines = (parsed.multi_gpu, parsed.tpu, parsed.use_deepspeed, parsed.use_fsdp, parsed.use_megatron_lm)
    if (parsed.num_processes or 1) == 1 or any(engines) or _configures_several(parsed):
        return
    import torch

    here = parsed.num_processes // (parsed.num_machines or 1)
    devices = 0 if parsed.cpu or not torch.accelerator.is_available() else torch.accelerator.device_count()
    if devices and devices < here:
        raise ConfigError(
            f"`num_processes`: {here} processes on this machine need as many GPUs, and it has {devices}; lower it, or give "
            "`--cpu`"
        )
    # On CPUs as on GPUs: one process for each, which torchrun starts.
    parsed.multi_gpu, parsed.cpu = True, False
    if not devices:
        os.environ["ACCELERATE_USE_CPU"] = "true"


def _configures_several(parsed: argparse.Namespace) -> bool:
    """Whether a file of accelerate, the given one or the user's default, says how several processes work together."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.utils import DistributedType

    if parsed.config_file is None and (parsed.cpu or not Path(default_config_file).is_file()):
        return False
    kind = load_config_from_file(parsed.config_file).distributed_type
    return kind not in (DistributedType.NO, DistributedType.MULTI_CPU)
