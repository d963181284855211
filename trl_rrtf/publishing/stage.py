"""The command `push`: model, evaluations, ranked groups and export on the Hub, in one collection."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trl_rrtf.errors import ConfigError, LoadError, OutputError
from trl_rrtf.evaluation.result import Evaluation
from trl_rrtf.models.hub import HUB_ADDRESS, create_repository, hub_errors, hub_id, push_folder
from trl_rrtf.models.onnx_runtime import MODEL_FILE, REPORT_FILE
from trl_rrtf.models.paths import base_model, model_fingerprint, require_model
from trl_rrtf.models.private_text import own_places, refuse_private_rows, refuse_private_text
from trl_rrtf.options import check_paths
from trl_rrtf.publishing.card import CardFacts, card_text, compose_card, read_card
from trl_rrtf.publishing.config import PushConfig
from trl_rrtf.publishing.eval_results import (
    DEFAULT_TASK,
    Benchmark,
    eval_results,
    eval_results_entry,
    eval_results_yaml,
    evaluations_table,
    portable,
    problem_set,
)
from trl_rrtf.publishing.folder import WEIGHTS, files_to_push, lay_out
from trl_rrtf.ranking.hub import COMMIT_MESSAGE, write_data_set
from trl_rrtf.rows.files import check_rows, fingerprint, output_errors, read_object, write_json, write_text
from trl_rrtf.rows.records import RankedGroup
from trl_rrtf.rows.summary import Summary

logger = logging.getLogger(__name__)

_OWN_RESULTS = ".eval_results/trl_rrtf_"
"""Begins the names of evaluations that this command uploads, and of those that a later push may remove."""

_TRAIN_SETTINGS = "train_settings.json"


@dataclass(kw_only=True)
class PushSummary(Summary):
    """What was pushed, or would be.

    Attributes:
        files: Repository -> its files.
        addresses: Repository -> its address; empty after a dry run.
        collection: Address of the collection, or None.
        evaluations: Evaluations in the cards.
        eval_results: Files in `.eval_results/`, of whole benchmarks alone.
        notes: What was left out or told otherwise than it stands on the disk.
        output: Where a dry run laid out what would be uploaded, or None.
    """

    files: dict[str, list[str]]
    addresses: dict[str, str] = field(default_factory=dict)
    collection: str | None = None
    evaluations: int = 0
    eval_results: int = 0
    notes: list[str] = field(default_factory=list)
    output: str | None = None

    def table(self) -> dict[str, Any]:
        """What to show: label -> value."""
        files = {repository: len(names) for repository, names in self.files.items()}
        told = self.addresses or {name: "\n".join(names) for name, names in self.files.items()}
        return {
            **{f"{name} ({files[name]} file{'s' * (files[name] != 1)})": value for name, value in told.items()},
            **({"collection": self.collection} if self.collection else {}),
            "evaluations": self.evaluations,
            "benchmarks in .eval_results": self.eval_results,
            **({"output": self.output} if self.output else {}),
            **{f"note {number}": note for number, note in enumerate(self.notes, start=1)},
            "pushed": "yes" if self.addresses else "no, a dry run",
        }


@dataclass
class _Part:
    """What becomes one repository."""

    name: str
    source: Path
    repo_id: str
    repo_type: Literal["model", "dataset"]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    dataset_id: str | None = None  # the data that it was trained on, where they are pushed beside it
    folder: Path = Path()


def run_push(config: PushConfig) -> PushSummary:
    """Checks everything, makes the repositories, uploads each in one commit, and puts them into the collection.

    Run again, it uploads what changed, and nothing stands there twice. Nothing on this disk is changed.

    Args:
        config: What goes where.

    Returns:
        Files, addresses, and what was left out.

    Raises:
        ConfigError: An evaluation is of another model, an export of another checkpoint, or a file holds what may not leave
            this machine.
        LoadError: A folder or file is not there, or holds something else.
        RowError: A row of the ranked groups breaks the format.
        OutputError: The Hub cannot be reached, or refused: what is done and what is left is named.
    """
    check_paths(config)
    places = _places(config)
    parts, notes = _checked(config, places)
    with _layout(config) as root:
        for part in parts:
            part.folder = root / f"{part.repo_type}s" / part.repo_id
            notes += _lay_out(part, config, places)
        if not config.dry_run:
            for part in parts:
                create_repository(
                    part.repo_id, repo_type=part.repo_type, private=config.private, kept="; nothing is uploaded yet"
                )
        hub = _DryHub() if config.dry_run else _Hub()
        for part in parts:
            if part.repo_type == "model":
                notes += _compose(part, parts, config, hub, places)
        files = {
            part.repo_id: sorted(path.relative_to(part.folder).as_posix() for path in part.folder.rglob("*") if path.is_file())
            for part in parts
        }
        for note in notes:
            logger.warning("%s", note)
        addresses, collection = ({}, None) if config.dry_run else _upload(parts, config)
    return PushSummary(
        files=files,
        addresses=addresses,
        collection=collection,
        evaluations=sum(len(part.evaluations) for part in parts),
        eval_results=sum(name.startswith(_OWN_RESULTS) for names in files.values() for name in names),
        notes=notes,
        output=config.output,
    )


@contextlib.contextmanager
def _layout(config: PushConfig) -> Iterator[Path]:
    """The folder in which repositories are laid out; it is gone afterwards, unless a dry run was asked to keep it."""
    if config.output is None:
        with tempfile.TemporaryDirectory(prefix="trl-rrtf-push-") as temporary:
            yield Path(temporary)
        return
    folder = Path(config.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"`output`: `{folder}` is there already; choose a new folder, or remove it yourself")
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:  # half of it would be in the way of the next run
        shutil.rmtree(folder)
        raise


def _places(config: PushConfig) -> tuple[str, ...]:
    """Folders of this machine that nothing that is pushed may tell."""
    given = (config.model, config.ranked_groups, config.export, *config.evaluations)
    return own_places(*(path for path in given if path))


def _checked(config: PushConfig, places: tuple[str, ...]) -> tuple[list[_Part], list[str]]:
    """What is to be pushed, once all of it was looked at, and what is to be said of it."""
    parts, notes = list[_Part](), list[str]()
    if config.model and config.repo_id:
        parts.append(_Part("model", _model_folder(config.model, "model", places), config.repo_id, "model"))
    if config.ranked_groups and config.dataset_repo_id:
        if not Path(config.ranked_groups).exists():
            raise LoadError(f"`ranked_groups`: there is no `{config.ranked_groups}` here; give a file of `trl-rrtf rank`")
        check_rows(config.ranked_groups, RankedGroup)
        refuse_private_rows(config.ranked_groups, places)
        parts.append(_Part("ranked groups", Path(config.ranked_groups), config.dataset_repo_id, "dataset"))
    if config.export and config.export_repo_id:
        folder = _model_folder(config.export, "export", places)
        _require_export_of(folder, config.model)
        parts.append(_Part("export", folder, config.export_repo_id, "model"))
    _share_out(config.evaluations, [part for part in parts if part.repo_type == "model"], places)
    if config.model and config.ranked_groups:
        if _was_trained_on(Path(config.model), config.ranked_groups):
            parts[0].dataset_id = config.dataset_repo_id
        else:
            notes.append(
                f"`{config.model}` was trained on other data than `{config.ranked_groups}`, so its card does not name these "
                "groups"
            )
    return parts, notes


def _model_folder(given: str, argument: str, places: tuple[str, ...]) -> Path:
    if hub_id(given):
        raise LoadError(f"`{argument}`: `{given}` is no folder here, and what is on the Hub need not be pushed; give a folder")
    require_model(given, argument)
    folder = Path(given)
    is_export = all((folder / name).is_file() for name in (MODEL_FILE, REPORT_FILE))
    if argument == "model" and is_export:
        raise LoadError(
            f"`model`: `{given}` is an export (it holds {MODEL_FILE} with its {REPORT_FILE}); give it with `--export {given} "
            "--export_repo_id owner/name`"
        )
    if argument == "export" and not is_export:
        raise LoadError(f"`export`: `{given}` holds no {MODEL_FILE} with its {REPORT_FILE}; make it with `trl-rrtf export`")
    if not any(name.endswith(WEIGHTS) for name in files_to_push(folder)):
        raise LoadError(
            f"`{argument}`: the folder `{given}` holds no weights ({', '.join(WEIGHTS)}); is the model saved there?"
        )
    card = read_card(folder, folder.name)
    path = folder / "README.md"
    content = path.read_text(encoding="utf-8") if path.is_file() else card.text
    header = content.count("\n") - card.text.count("\n")  # what stands in the metadata is looked at one by one
    refuse_private_text("\n" * header + card.text, path, places)
    return folder


def _require_export_of(folder: Path, model: str | None) -> None:
    """Refuses an export of another model than the one that is pushed beside it."""
    if model is None:
        return
    settings = read_object(folder / REPORT_FILE, "export the model again").get("settings", {})
    if settings.get("model_fingerprint") != model_fingerprint(model):
        raise ConfigError(
            f"`export`: `{folder}` was exported from another model ({settings.get('model')}) than `{model}` is now; export it "
            "again, or push the two apart"
        )


def _share_out(files: list[str], parts: list[_Part], places: tuple[str, ...]) -> None:
    """Gives each evaluation to the model that it is of.

    Raises:
        ConfigError: It is of none of them, or tells what may not leave this machine.
    """
    of_model = {model_fingerprint(str(part.source)): part for part in parts} if files else {}
    for file in files:
        evaluation = Evaluation.load(file, "evaluations")
        if evaluation.best_of_n:
            raise ConfigError(
                f"`evaluations`: `{file}` is of `trl-rrtf select`: it measures a choice among candidates "
                f"(select@{evaluation.best_of_n.get('n')}), not the model; leave it out"
            )
        made_of = evaluation.fingerprints.get("model_fingerprint", "")
        if made_of not in of_model:
            told = evaluation.settings.get("model", "a model that it does not name")
            folders = " or ".join(f"`{part.source}`" for part in parts)
            raise ConfigError(
                f"`evaluations`: `{file}` is of another model ({told}) than {folders} now holds: its fingerprint is "
                f"{made_of or 'not recorded'}, and expected is {' or '.join(of_model)}; leave it out, or evaluate again"
            )
        part = of_model[made_of]
        refuse_private_text(json.dumps(portable(evaluation, part.repo_id), indent=2), file, places)
        mine = part.evaluations
        if evaluation in mine.values():
            raise ConfigError(f"`evaluations`: `{file}` holds the same result as another one that is given; leave it out")
        name, number = Path(file).stem, 2
        while f"evaluations/{name}.json" in mine:
            name, number = f"{Path(file).stem}_{number}", number + 1
        mine[f"evaluations/{name}.json"] = evaluation


def _was_trained_on(model: Path, ranked_groups: str) -> bool:
    """Whether the data are those that `trl-rrtf train` recorded; where it recorded none, whoever pushes both says so."""
    path = model / _TRAIN_SETTINGS
    if not path.is_file():
        return True
    recorded = read_object(path, "remove it to push without what it says").get("dataset")
    return recorded in (None, fingerprint(ranked_groups))


def _lay_out(part: _Part, config: PushConfig, places: tuple[str, ...]) -> list[str]:
    """What needs no network; returns what is to be said of it."""
    part.folder.mkdir(parents=True)
    if part.repo_type == "model":
        return lay_out(part.source, part.folder, base_model=config.base_model, places=places)
    write_data_set(str(part.source), part.folder, repo_id=part.repo_id, license=config.dataset_license)
    return []


def _compose(part: _Part, parts: list[_Part], config: PushConfig, hub: _Hub | _DryHub, places: tuple[str, ...]) -> list[str]:
    """Writes the evaluations and the card of a model's repository; returns what the card leaves out."""
    _write_evaluations(part, hub)
    card = read_card(part.source, part.repo_id.split("/")[1])
    dropped = compose_card(card, _facts(part, parts, config), hub.exists)
    composed = part.folder / "README.md"
    composed.unlink(missing_ok=True)  # a link to the folder's own
    text = card_text(card)
    refuse_private_text(text, part.source / "README.md", places)  # metadata of other tools
    write_text(composed, text)
    return [f"the card of {part.repo_id} leaves out {entry}" for entry in dropped]


def _facts(part: _Part, parts: list[_Part], config: PushConfig) -> CardFacts:
    adapters_base = base_model(str(part.source))
    facts = CardFacts(
        repo_id=part.repo_id,
        local_name=part.source.absolute().name,
        base_model=config.base_model or hub_id(adapters_base),
        dataset_id=part.dataset_id,
        license=config.license,
        results=[result for evaluation in part.evaluations.values() for result in eval_results(evaluation)],
        sections=[evaluations_table(part.evaluations)] if part.evaluations else [],
    )
    if part.name == "export":
        facts.relation = "quantized"  # the Hub's word for a model in another form
        facts.base_model = next((other.repo_id for other in parts if other.name == "model"), facts.base_model)
    elif adapters_base:
        facts.relation, facts.library = "adapter", "peft"
    return facts


def _write_evaluations(part: _Part, hub: _Hub | _DryHub) -> None:
    """The results whole, and those of benchmarks in the Hub's own format, a file each."""
    taken: dict[str, int] = {}
    for file, evaluation in part.evaluations.items():
        write_json(part.folder / file, portable(evaluation, part.repo_id))
        benchmark = problem_set(evaluation).benchmark
        if benchmark is None or not hub.exists(benchmark.dataset_id, "dataset"):
            continue
        source = f"{HUB_ADDRESS}/{part.repo_id}/blob/main/{file}"
        entry = eval_results_entry(evaluation, hub.task_id(benchmark), source, "trl-rrtf evaluate")
        if entry is not None:
            taken[benchmark.key] = taken.get(benchmark.key, 0) + 1
            number = f"_{taken[benchmark.key]}" if taken[benchmark.key] > 1 else ""
            write_text(part.folder / f"{_OWN_RESULTS}{benchmark.key}{number}.yaml", eval_results_yaml([entry]))


class _DryHub:
    """Takes every id for one that exists, since nothing may be asked."""

    def exists(self, repo_id: str, repo_type: str) -> bool:
        return True

    def task_id(self, benchmark: Benchmark) -> str:
        return DEFAULT_TASK


class _Hub:
    """Asks the Hub which ids exist."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bool] = {}

    def exists(self, repo_id: str, repo_type: str) -> bool:
        from huggingface_hub import HfApi

        if (repo_id, repo_type) not in self._known:
            with hub_errors(repo_id, "; nothing is uploaded yet"):
                self._known[repo_id, repo_type] = HfApi().repo_exists(repo_id, repo_type=repo_type)
        return self._known[repo_id, repo_type]

    def task_id(self, benchmark: Benchmark) -> str:
        """What the benchmark's data set calls its task, in its `eval.yaml`."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import EntryNotFoundError

        with hub_errors(benchmark.dataset_id, "; nothing is uploaded yet"), tempfile.TemporaryDirectory() as cache:
            try:
                path = HfApi().hf_hub_download(benchmark.dataset_id, "eval.yaml", repo_type="dataset", cache_dir=cache)
            except EntryNotFoundError:
                return DEFAULT_TASK
            return _task_in(Path(path).read_text(encoding="utf-8"), benchmark)


def _task_in(text: str, benchmark: Benchmark) -> str:
    import yaml

    values = yaml.safe_load(text)
    tasks = [task for task in (values or {}).get("tasks", []) if isinstance(task, dict) and task.get("id")]
    fitting = [task for task in tasks if task.get("config") in (None, benchmark.config)] or tasks
    return str(fitting[0]["id"]) if fitting else DEFAULT_TASK


def _upload(parts: list[_Part], config: PushConfig) -> tuple[dict[str, str], str | None]:
    """One commit per repository, then the collection; an error says how far it came."""
    steps = [part.repo_id for part in parts] + ([f"the collection {config.collection!r}"] if config.collection else [])
    addresses: dict[str, str] = {}
    for number, part in enumerate(parts):
        addresses[part.repo_id] = push_folder(
            part.folder,
            part.repo_id,
            repo_type=part.repo_type,
            message="Upload model and evaluations" if part.repo_type == "model" else COMMIT_MESSAGE,
            private=config.private,
            replace=[f"{_OWN_RESULTS}*.yaml"] if part.repo_type == "model" else [],
            kept=_progress(steps, number),
        )
    if config.collection is None:
        return addresses, None
    with hub_errors(f"the collection {config.collection}", _progress(steps, len(parts))):
        return addresses, _collect(parts, config)


def _progress(steps: list[str], done: int) -> str:
    return (
        f". Done: {', '.join(steps[:done]) or 'nothing'}; left: {', '.join(steps[done:])}. The same command does what is left, "
        "and nothing twice"
    )


def _collect(parts: list[_Part], config: PushConfig) -> str:
    """Makes the collection where it is not there, and adds what it lacks."""
    from huggingface_hub import HfApi

    api = HfApi()
    collection = api.create_collection(
        str(config.collection),
        namespace=config.namespace or parts[0].repo_id.split("/")[0],
        private=bool(config.private),
        exists_ok=True,
    )
    for part in parts:
        api.add_collection_item(collection.slug, part.repo_id, part.repo_type, note=f"The {part.name}.", exists_ok=True)
    return str(collection.url)
