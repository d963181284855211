"""The frame: public names, import directions, no TRL internals outside one file, recipes that parse."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import sys
import typing
from pathlib import Path

import pytest

import trl_rrtf

PACKAGE = Path(trl_rrtf.__file__).parent
ROOT = PACKAGE.parent

# Who may import whom: errors, options <- rows <- models, problems <- every stage <- pipeline <- cli.
FOUNDATION = {
    "errors": set(),
    "python_source": set(),
    "options": {"errors"},
    "cluster": {"errors"},
    "rows": {"errors", "options", "python_source"},
    "models": {"errors", "options", "rows"},
}
BASE = set(FOUNDATION)
STAGES = {
    "problems": BASE,
    "sampling": BASE | {"problems", "judging"},  # repair turns run public tests
    "judging": BASE,
    "ranking": BASE,
    "training": BASE,
    "export": BASE,
    "evaluation": BASE | {"sampling", "judging", "problems"},
    "evolving": BASE | {"problems", "sampling", "judging"},
    "publishing": BASE | {"evaluation", "ranking"},
}
# A reward is a small pipeline: programs are taken out of texts, judged and scored.
OVER_STAGES = {"rewards": BASE | {"sampling", "judging", "ranking"}, "environment": BASE | {"judging"}}
ALLOWED = (
    FOUNDATION
    | STAGES
    | OVER_STAGES
    | {"pipeline": BASE | set(STAGES), "cli": BASE | set(STAGES) | {"pipeline", "environment"}}
)


def imports(path):
    """(module, names) of each import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, tuple(alias.name for alias in node.names)


def test_imports_go_one_way():
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if own == "__init__":
            continue
        for module, _ in imports(path):
            parts = module.split(".")
            if parts[0] == "trl_rrtf" and len(parts) > 1:
                assert parts[1] == own or parts[1] in ALLOWED[own], f"{path} imports {module}"


# Who may import whom inside the judge, by process: the folder's own files run in the user's.
JUDGE_WALLS = {
    "wire": (("trl_rrtf.judging.wire",), {"msgpack", "numpy"}),
    "candidate": (("trl_rrtf.judging.wire", "trl_rrtf.judging.candidate"), {"msgpack"}),
    "checker": (("trl_rrtf.judging.wire", "trl_rrtf.judging.checker"), {"msgpack", "numpy"}),
}


@pytest.mark.parametrize("room", JUDGE_WALLS)
def test_a_candidates_process_never_imports_what_holds_a_test(room):
    own, packages = JUDGE_WALLS[room]
    files = list((PACKAGE / "judging" / room).rglob("*.py"))
    assert len(files) > 3
    for path in files:
        for module, _ in imports(path):
            first = module.split(".")[0]
            allowed = module.startswith(own) if first == "trl_rrtf" else first in sys.stdlib_module_names | packages
            assert allowed, f"{path} imports {module}"


@pytest.mark.parametrize("stage", ["judging", "ranking"])
def test_judging_and_ranking_never_import_torch(stage):
    path = PACKAGE / stage
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        never = ("torch", "transformers", "trl", *(() if file.name == "hub.py" else ("datasets",)))  # it uploads data sets
        heavy = [module for module, _ in imports(file) if module.split(".")[0] in never]
        assert not heavy, f"{file} imports {heavy}"


def test_only_one_file_touches_trl_internals():
    """Elsewhere: names of the `trl` package itself, without underscore."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "_trl.py":
            continue
        for module, names in imports(path):
            if module.split(".")[0] == "trl":
                assert module == "trl", f"{path} imports {module}"
                assert not any(name.startswith("_") for name in names)


def test_every_public_name_is_there_and_documented():
    assert trl_rrtf.__all__ == sorted(trl_rrtf.__all__)
    for name in trl_rrtf.__all__:
        value = getattr(trl_rrtf, name)
        assert value.__doc__, name
    assert set(trl_rrtf.__all__) <= set(dir(trl_rrtf))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = trl_rrtf.Nothing


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {
        alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname
    }
    assert typed == set(trl_rrtf.__all__)


def test_configurations_are_light():
    """`--help` imports them: what takes seconds to import stays out of them and of what they import here."""
    heavy = ("torch", "transformers", "trl", "datasets", "optimum", "onnxruntime", "onnx", "accelerate", "peft")
    seen, todo = set(), [*PACKAGE.rglob("config.py"), PACKAGE / "training" / "options.py"]
    todo.remove(PACKAGE / "training" / "config.py")  # `RRTFConfig` is a configuration of TRL's
    while todo:
        path = todo.pop()
        seen.add(path)
        for node in ast.parse(path.read_text()).body:  # those inside functions come later
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module.split(".")[0] not in heavy, f"{path} imports {module}"
                own = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
                if own.exists() and own not in seen:
                    todo.append(own)


def test_what_an_option_takes_is_told_one_way():
    """Every option of a stage is made by `option`: type, choices, range, and whether it decides the output."""
    from trl_rrtf.cli import STAGES as COMMANDS

    for name in {name for stage in COMMANDS.values() for name in stage.help_configs or stage.configs}:
        module, _, config = name.partition(":")
        for field in dataclasses.fields(getattr(importlib.import_module(module), config)):
            assert "decides_output" in field.metadata, f"{name}.{field.name}"


def test_stages_say_what_they_did_in_types():
    from trl_rrtf.cli import STAGES as COMMANDS
    from trl_rrtf.rows.summary import Summary

    for command, stage in COMMANDS.items():
        module, _, function = stage.function.partition(":")
        hints = typing.get_type_hints(getattr(importlib.import_module(module), function))
        assert issubclass(hints["return"], Summary), command


def test_the_input_of_a_stage_has_one_name():
    from trl_rrtf.cli import STAGES as COMMANDS

    for command, stage in COMMANDS.items():
        module, _, config = stage.configs[0].partition(":")
        names = [field.name for field in dataclasses.fields(getattr(importlib.import_module(module), config))]
        assert ("input" in names) == (command not in ("compare", "export", "generate", "push")), command
        assert not {"problems", "dataset"} & set(names), command


def test_modules_stay_readable():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 500, path
        assert path.name != "utils.py"


def test_errors_are_drawn_in_their_docstring():
    errors = importlib.import_module("trl_rrtf.errors")
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert name in errors.__doc__


def test_recipes_parse():
    from trl_rrtf.pipeline import load_pipeline_config

    recipes = list((ROOT / "recipes").rglob("pipeline.yaml"))
    assert recipes
    for recipe in recipes:
        config = load_pipeline_config(["--config", str(recipe)])
        assert config.benchmarks


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes" / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_recipes_parse(recipe):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(recipe))
    assert config.num_processes >= 1
    assert config.mixed_precision == "bf16"
