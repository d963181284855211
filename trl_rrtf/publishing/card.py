"""The card that is uploaded: the folder's own, with what the Hub has to know. The folder's stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.hub import hub_id, hub_link

_BEGIN, _END = "<!-- trl-rrtf push: begin -->", "<!-- trl-rrtf push: end -->"
_OWN_TAG = "rrtf"
_LATER_SECTIONS = ("\n## Versions\n", "\n## Citation\n")
"""What stands behind the evaluations, in the cards of this package."""

# Sentences of training/model_card.md and export/model_card.md.
_LOCAL_BASE = re.compile(
    r"(?<=A fine-tuned version of )(?:a local model, `[^`\n]+`|\[[^\]\n]+\]\(https://huggingface\.co/[^)\n]+\))"
)
_LOCAL_DATA = re.compile(r" on local data, `[^`\n]+`")
_LOCAL_EXPORTED = re.compile(r"^`[^`\n]+`(?= as a \w+ ONNX graph )", re.MULTILINE)
_EXPORT_TITLE = re.compile(r"^# .+(?=, \w+, for ONNX Runtime$)", re.MULTILINE)

Exists = Callable[[str, str], bool]
"""Whether a repository (`owner/name`, `model` or `dataset`) is on the Hub."""


@dataclass(kw_only=True)
class CardFacts:
    """What a card has to say.

    Attributes:
        repo_id: The repository that it is for.
        local_name: What the folder is called here; examples in the card load it under this name.
        base_model: Hub id of the base model; None for what the card says already.
        relation: How the model follows from its base model, as the Hub names it: `finetune`, `adapter` or `quantized`.
        dataset_id: Hub id of the data that it was trained on; None for what the card says already.
        license: Licence; None for what the card says already.
        library: Library that loads it; None for what the card says already.
        results: Entries of the `model-index`.
        sections: Markdown that shows evaluations.
    """

    repo_id: str
    local_name: str
    base_model: str | None = None
    relation: str = "finetune"
    dataset_id: str | None = None
    license: str | None = None
    library: str | None = None
    results: list[EvalResult] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)


def read_card(folder: Path, title: str) -> ModelCard:
    """Reads a folder's card.

    Args:
        folder: The folder.
        title: Title of a new card, where it has none.

    Raises:
        ConfigError: The card is no text, or its metadata cannot be read.
    """
    path = folder / "README.md"
    try:
        return ModelCard(path.read_text(encoding="utf-8") if path.is_file() else f"---\n{{}}\n---\n\n# {title}\n")
    except Exception as error:  # no UTF-8, no YAML, no mapping, a `model-index` of another form
        raise ConfigError(f"the metadata of `{path}` cannot be read ({error}); correct the part between its `---`") from error


def card_text(card: ModelCard) -> str:
    """The card's file. `str(card)` writes the metadata in another order each time (huggingface_hub 0.36 sorts by a set)."""
    return f"---\n{card.data.to_yaml()}\n---\n{card.text}"


def compose_card(card: ModelCard, facts: CardFacts, exists: Exists) -> list[str]:
    """Completes a card in place.

    Args:
        card: The card.
        facts: What it has to say.
        exists: Whether a repository is on the Hub; metadata that name others are dropped.

    Returns:
        What was dropped from the metadata, in words.
    """
    data: Any = card.data  # its fields are not declared
    text = card.text
    is_own = _OWN_TAG in (data.tags or [])
    dropped = list[str]()
    base_models = [facts.base_model] if facts.base_model else _listed(data.base_model)
    datasets = [*_listed(data.datasets), *([facts.dataset_id] if facts.dataset_id else [])]
    for kind, names in (("model", base_models), ("dataset", datasets)):
        for name in [name for name in names if not (hub_id(name) == name and exists(name, kind))]:
            names.remove(name)
            dropped.append(f"{name}, which is no {kind} on the Hub")
            text = text.replace(hub_link(name, kind), f"`{name}`")
    data.base_model = base_models[0] if len(base_models) == 1 else base_models or None
    data["base_model_relation"] = facts.relation if base_models else None
    data.datasets = list(dict.fromkeys(datasets)) or None
    data.license = facts.license or data.license
    data.library_name = facts.library or data.library_name
    _add_results(card, facts, exists, dropped)
    if is_own:
        text = _with_repository(text, facts)
        text = _with_origin(text, base_models, facts.dataset_id if facts.dataset_id in datasets else None)
    card.text = _with_sections(text, [*facts.sections, _origin(base_models, datasets)])
    return dropped


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _add_results(card: ModelCard, facts: CardFacts, exists: Exists, dropped: list[str]) -> None:
    """Adds evaluations; one that the card has already, with whatever value, is replaced."""
    results = list[EvalResult]()
    for result in facts.results:
        if exists(result.dataset_type, "dataset"):
            results.append(result)
        else:
            dropped.append(f"{result.metric_name} on {result.dataset_type}, which is no dataset on the Hub")
    if not results:
        return
    data: Any = card.data
    others = [other for other in data.eval_results or [] if not any(other.is_equal_except_value(own) for own in results)]
    data.model_name = facts.repo_id.split("/")[1]
    data.eval_results = [*others, *results]


def _with_repository(text: str, facts: CardFacts) -> str:
    """Title and examples of a card of this package name the repository in the place of the folder."""
    title = facts.repo_id.split("/")[1]
    text = text.replace(f"\n# {facts.local_name}\n", f"\n# {title}\n", 1)
    text = text.replace(f'model="{facts.local_name}"', f'model="{facts.repo_id}"')
    text = _EXPORT_TITLE.sub(f"# {title}", text, count=1)
    return text.replace("path/or/hub-id", facts.repo_id)


def _with_origin(text: str, base_models: list[str], dataset_id: str | None) -> str:
    """What a card of this package tells of local models and data, by the names that the metadata now have for them."""
    if len(base_models) == 1:
        link = hub_link(base_models[0])
        text = _LOCAL_BASE.sub(link, text, count=1)
        text = _LOCAL_EXPORTED.sub(link, text, count=1)
    if dataset_id is not None:
        text = _LOCAL_DATA.sub(f" on {hub_link(dataset_id, 'dataset')}", text, count=1)
    return text


def _origin(base_models: list[str], datasets: list[str]) -> str:
    lines = [f"- base model: {hub_link(name)}" for name in base_models]
    lines += [f"- ranked groups: {hub_link(name, 'dataset')}" for name in datasets]
    return "\n".join(["## Where it comes from", "", *lines, ""]) if lines else ""


def _with_sections(text: str, sections: list[str]) -> str:
    """Puts sections between two marks, where a later push finds them again; before the versions, or at the end."""
    before, begin, rest = text.partition(_BEGIN)
    if begin:
        text = before.rstrip("\n") + "\n" + rest.partition(_END)[2]
    told = "\n".join(section for section in sections if section)
    if not told:
        return text
    block = f"\n{_BEGIN}\n{told}{_END}\n"
    place = min((text.find(section) for section in _LATER_SECTIONS if section in text), default=len(text))
    return f"{text[:place].rstrip()}\n{block}{text[place:]}"
