"""What README and docs show is true: Python blocks run, commands and their options exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.fresh_process import run_script
from trl_rrtf.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "recipes" / "README.md"]


def blocks(language):
    """(page and number, code) of each fenced block of a language."""
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M), start=1):
            yield pytest.param(code, id=f"{page.name}-{number}")


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_blocks_run(code, tiny_model_dir, tmp_path):
    """In a folder like the repository's, with a tiny model in the place of the quick start's."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "SmolLM2-135M-Instruct").symlink_to(tiny_model_dir)
    script = tmp_path / "block.py"
    script.write_text(code)
    done = run_script(script)
    assert done.returncode == 0, done.stderr[-2000:]
    saved = list(tmp_path.glob("runs/*/model.safetensors"))
    assert saved or "save_model" not in code


@pytest.mark.parametrize("code", list(blocks("bash")))
def test_shell_blocks_name_what_exists(code, capsys):
    makefile = (ROOT / "Makefile").read_text()
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert f"\n{words[1]}:" in makefile
        if words[:1] == ["trl-rrtf"] and "STAGE" not in words:
            assert main([words[1], "--help"]) == 0
            shown = capsys.readouterr().out
            for option in (word for word in words[2:] if word.startswith("--")):
                assert option == "--output_dir" or f"{option} " in shown, line


def test_links_to_files_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_option_of_the_trainer_is_documented():
    from dataclasses import fields

    from trl_rrtf.training.options import RRTFOptions

    page = (ROOT / "docs" / "trainer.md").read_text()
    assert all(f"| `{option.name}` |" in page for option in fields(RRTFOptions))


def test_the_reference_names_every_public_name():
    import trl_rrtf

    page = (ROOT / "docs" / "reference.md").read_text()
    whole_modules = set(re.findall(r"::: (trl_rrtf\.[\w.]+)\n    options", page))
    for name in trl_rrtf.__all__:
        module = getattr(trl_rrtf, name).__module__
        assert f"::: trl_rrtf.{name}\n" in page or module in whole_modules, name


def test_the_messages_of_the_troubleshooting_page_are_the_packages_own():
    import ast

    import trl_rrtf

    texts = " ".join(
        node.value
        for path in Path(trl_rrtf.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([a-z][^`|]* [^`|]*)` \|", page, re.M)
    assert len(messages) >= 6
    assert [message for message in messages if message not in texts] == []
