"""What each ranking term adds to the fine-tuning term, as gradients."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2-135m"


@pytest.fixture(scope="module")
def gradients():
    spec = importlib.util.spec_from_file_location("gradients", RECIPE / "gradients.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPE)  # as for a script: it imports the files beside it
        spec.loader.exec_module(module)
    return module


def rows_of(*students):
    return [
        {
            "prompt": "Write f.\n",
            "completions": ["def f():\n    return 1\n", *students],
            "scores": [3.25] + [1.0] * len(students),
            "sources": ["reference"] + ["student"] * len(students),
        }
    ]


def test_every_loss_has_a_row(gradients, tiny_model_dir):
    rows = rows_of("def f():\n    return 2\n", "def f(:\n")
    found = {name.strip("`"): (float(norm), float(cosine)) for name, norm, cosine in gradients.compare(tiny_model_dir, rows)}
    assert set(found) == {"rrhf", "rrtf", "rrtf-hinge", "rrtf-logistic", "rrtf-plackett_luce", "rrtf-lambda"}
    assert all(norm >= 0 and -1 <= cosine <= 1 for norm, cosine in found.values())
    assert found["rrtf-logistic"][0] > 0, "every pair has a gradient"


def test_gradients_do_not_depend_on_how_groups_are_split(gradients, tiny_model_dir, monkeypatch):
    rows = rows_of("def f():\n    return 2\n") + rows_of("def f(:\n")
    whole = gradients.gradient(tiny_model_dir, rows)
    monkeypatch.setattr(gradients, "GROUPS_AT_ONCE", 1)
    assert gradients.gradient(tiny_model_dir, rows).allclose(whole, atol=1e-6)
