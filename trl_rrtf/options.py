"""Options of the stages: what each takes, how it is checked, and whether it decides the output.

A stage's configuration is a dataclass whose fields are made by [`option`][trl_rrtf.options.option]. Its `__post_init__` calls
[`check_options`][trl_rrtf.options.check_options], so that a wrong value is found by whichever door it comes in: Python, the
command line or a YAML file. [`settings_of`][trl_rrtf.options.settings_of] gives the options that decide the output; a run that
finds an output made with other ones refuses it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from trl_rrtf.errors import ConfigError

ConfigT = TypeVar("ConfigT")

SIDE_FILES = (".partial", ".settings.json", ".summary.json", ".draws", ".lock")
"""Endings of the files that a stage keeps beside its output."""


def option(
    help: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    choices: Sequence[str] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    decides_output: bool = True,
    is_input: bool = False,
    is_output: bool = False,
    aliases: Sequence[str] = (),
) -> Any:
    """A field of a configuration.

    Args:
        help: What `--help` says.
        default: Its value where none is given; an option without one must be given.
        default_factory: Makes the default, for lists and dictionaries.
        choices: The values that it may have (each entry, for a list).
        at_least: Smallest number.
        above: The number is larger than this.
        at_most: Largest number.
        below: The number is smaller than this.
        decides_output: Whether another value can change what the stage writes. One that cannot (how many workers, where it
            runs) may differ when a run goes on.
        is_input: Whether it names a file or folder that is read.
        is_output: Whether it names a file or folder that is written; it may not be one that is read.
        aliases: Other names on the command line, such as `--problems`.
    """
    metadata = _Metadata(
        help=help,
        choices=None if choices is None else tuple(choices),
        range=Range(at_least, above, at_most, below),
        decides_output=decides_output,
        is_input=is_input,
        is_output=is_output,
        aliases=tuple(aliases),
    )
    return dataclasses.field(default=default, default_factory=default_factory, metadata=metadata)


class _Metadata(dict[str, Any]):
    """What `option` knows of a field; TRL's parser hands a copy of it to argparse, which takes these two alone."""

    def copy(self) -> dict[str, Any]:
        return {name: self[name] for name in ("help", "aliases")}


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that an option may have; None where there is no bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        words = [f"{word} {_all_digits(bound)}" for word, bound in bounds.items() if bound is not None]
        return " and ".join(words) or "that is finite"


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Refuses a value that is none of the choices.

    Raises:
        ConfigError: It names the option, the choices and what was got.
    """
    if value not in choices:
        raise ConfigError(f"`{name}`: expected one of {', '.join(map(str, choices))}, got {value!r}")


def check_choices(name: str, values: Sequence[Any], choices: Collection[Any]) -> None:
    """Refuses a list with a value that is none of the choices.

    Raises:
        ConfigError: It names the option, the choices and what was got.
    """
    if unknown := [value for value in values if value not in choices]:
        raise ConfigError(f"`{name}`: expected some of {', '.join(map(str, choices))}, got {', '.join(map(str, unknown))}")


def check_range(name: str, value: float, allowed: Range) -> None:
    """Refuses a number out of range, infinite ones and NaN included.

    Raises:
        ConfigError: It names the option, the range and what was got.
    """
    if value not in allowed:
        words = str(allowed)
        raise ConfigError(
            f"`{name}`: expected {'' if words.startswith('at least') else 'a number '}{words}, got {_all_digits(value)}"
        )


def _all_digits(number: float) -> str:
    """`16777216`, and not `1.67772e+07`."""
    return str(number) if isinstance(number, int) else f"{number:.15g}"


def check_options(config: Any) -> None:
    """Checks types, choices and ranges of a configuration, and makes numbers of texts that are numbers.

    YAML reads `2e-4` as text, for one. Fields that were not made by `option` (those of TRL's configurations) are checked for
    their type alone, where that is a number, a truth value or a text; what else they take is TRL's business.

    Args:
        config: A dataclass, which is changed in place.

    Raises:
        ConfigError: A value is of a wrong type or out of range.
    """
    config_type: Any = type(config)
    hints = _type_hints(config_type)
    for field in dataclasses.fields(config):
        value, is_own = getattr(config, field.name), "range" in field.metadata
        if not is_own and (value is None or any(typing.get_origin(kind) is list for kind in _kinds(hints[field.name]))):
            continue
        converted = _converted(field.name, value, hints[field.name])
        if converted is not value:
            setattr(config, field.name, converted)
        if not is_own or converted is None:
            continue
        entries = converted if isinstance(converted, list) else [converted]
        if field.metadata["choices"] is not None:
            check = check_choices if isinstance(converted, list) else check_choice
            check(field.name, converted, field.metadata["choices"])
        for entry in entries:
            if isinstance(entry, int | float) and not isinstance(entry, bool):
                check_range(field.name, entry, field.metadata["range"])


def refuse_idle(config: Any, names: Collection[str], reason: str) -> None:
    """Refuses options that would do nothing, where they are not at their defaults.

    Args:
        config: A configuration.
        names: The options.
        reason: Why they would do nothing.

    Raises:
        ConfigError: It names the option and the reason.
    """
    for field in dataclasses.fields(config):
        if field.name in names and getattr(config, field.name) != field.default:
            raise ConfigError(f"`{field.name}`: {reason}, so it would do nothing; leave it out")


@functools.cache
def _type_hints(config_type: type) -> dict[str, Any]:
    return typing.get_type_hints(config_type)


def _converted(name: str, value: Any, hint: Any) -> Any:
    """The value as its type hint wants it; types that are not plain are left to whoever declared them."""
    kinds = _kinds(hint)
    if value is None:
        if not _is_plain(hint):
            return None
        raise ConfigError(f"`{name}`: got nothing; give {_KINDS.get(hint, 'a value')}, or leave the option out")
    if len(kinds) != 1:
        return value
    (kind,) = kinds
    if typing.get_origin(kind) is list:
        return _converted_list(name, value, *typing.get_args(kind))
    if kind not in _KINDS:
        return value
    found = _CONVERSIONS[kind](value)
    if found is None:
        raise ConfigError(f"`{name}`: expected {_KINDS[kind]}, got {type(value).__name__} {value!r}")
    return found


def _kinds(hint: Any) -> list[Any]:
    """The types of a hint, without None."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else [hint]
    return [member for member in members if member is not type(None)]


def _is_plain(hint: Any) -> bool:
    return hint in _KINDS or typing.get_origin(hint) is list


def _converted_list(name: str, value: Any, kind: Any) -> list[Any]:
    if not isinstance(value, list | tuple):  # a text would become a list of its characters
        raise ConfigError(f"`{name}`: expected a list, such as [{value!r}], got {type(value).__name__} {value!r}")
    return [_converted(f"{name}[{i}]", entry, kind) for i, entry in enumerate(value)]


def _as_bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_int(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None


def _as_float(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None


def _as_str(value: Any) -> str | None:
    return os.fspath(value) if isinstance(value, str | os.PathLike) else None


_CONVERSIONS: dict[Any, Callable[[Any], Any]] = {bool: _as_bool, int: _as_int, float: _as_float, str: _as_str}
_KINDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def build(config_type: type[ConfigT], values: Any, section: str) -> ConfigT:
    """Fills a configuration from a section of a file.

    Args:
        config_type: The dataclass.
        values: The keys of the section.
        section: Its name, for error messages.

    Raises:
        ConfigError: A key is unknown or missing, or its value is wrong; section and key are named.
    """
    require_mapping(values, section)
    known = {field.name: field for field in dataclasses.fields(config_type) if field.init}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(f"`{section}`: unknown key `{name}`; the keys are {', '.join(known)}")
    for name, field in known.items():
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"`{section}`: the key `{name}` is missing; give it in the file or as `--{name} value`")
    with in_section(section):
        return config_type(**values)


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file of options.

    Raises:
        ConfigError: It is not there, is not YAML, is no mapping, or holds a key twice.
    """
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """YAML lets the last of two equal keys win, in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
                line = node.start_mark.line + 1
                raise ConfigError(
                    f"`config`: `{path}`: the key `{twice[0]}` stands twice in the section at line {line}; remove one"
                )
            return super().construct_mapping(node, deep)

    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"`config`: cannot read `{path}`: {error.strerror}; check the path") from error
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a date of month 13, an endless number
        raise ConfigError(f"`config`: `{path}` is not YAML: {error}") from error
    require_mapping(values, "config")
    return dict(values)


def require_mapping(values: Any, section: str) -> None:
    """Refuses a section that has no keys.

    Raises:
        ConfigError: The section is empty, a list, a text or a number.
    """
    if values is None:
        raise ConfigError(f"`{section}`: the section is empty; give it keys, or leave it out")
    if not isinstance(values, Mapping):
        raise ConfigError(f"`{section}`: expected keys with values (`name: value`), got {type(values).__name__} {values!r}")


@contextlib.contextmanager
def in_section(section: str) -> Iterator[None]:
    """Inside, errors of configurations say which section of a file they are about.

    Raises:
        ConfigError: What was wrong, with the section in front.
    """
    try:
        yield
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"`{section}`: {error}") from error


def settings_of(config: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The options that decide the output, JSON-able, for comparison with those of an earlier run.

    Args:
        config: A configuration.
        without: Further names that do not decide it, of a configuration whose fields do not say so (TRL's).
    """
    return {
        field.name: _jsonable(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.init and field.name not in without and field.metadata.get("decides_output", True)
    }


def _jsonable(value: Any) -> Any:
    if isinstance(value, Enum):
        return _jsonable(value.value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, set):  # has another order in another process
        return sorted(map(_jsonable, value), key=str)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _jsonable(vars(value)) if hasattr(value, "__dict__") and not callable(value) else str(value)


def check_paths(*configs: Any) -> None:
    """Refuses an output that is an input: it would be overwritten.

    Args:
        configs: The configurations of a stage.

    Raises:
        ConfigError: An output, or a file that is kept beside it, is an input.
    """
    marked = [(field, getattr(config, field.name)) for config in configs for field in dataclasses.fields(config)]
    inputs = [
        (field.name, path)
        for field, value in marked
        if field.metadata.get("is_input")
        for path in (value if isinstance(value, list) else [value])
        if path and Path(path).exists()  # a Hub id is no file
    ]
    for field, output in marked:
        if not field.metadata.get("is_output") or not output:
            continue
        written = Path(output).resolve()
        written_files = {written, *(written.with_name(written.name + ending) for ending in SIDE_FILES)}
        for name, path in inputs:
            if Path(path).resolve() in written_files:
                raise ConfigError(
                    f"`{field.name}`: `{output}` would overwrite what `{name}` names (`{path}`); choose another place"
                )
