"""Options of the command `push`."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.hub import check_license, is_repository_id
from trl_rrtf.options import check_options, option, refuse_idle

_PLACES = {"model": "repo_id", "ranked_groups": "dataset_repo_id", "export": "export_repo_id"}
"""What is pushed -> the option that says where to."""


@dataclass
class PushConfig:
    """What goes to the Hub, and where to.

    Attributes:
        model: Folder of a trained model, or None.
        repo_id: Its repository, `owner/name`.
        base_model: Hub id of the model that it was trained from, where that was a folder.
        evaluations: Results of `trl-rrtf evaluate` of the model, or of the export.
        ranked_groups: Ranked groups, or None.
        dataset_repo_id: Their data set, `owner/name`.
        export: Folder of `trl-rrtf export`, or None.
        export_repo_id: Its repository, `owner/name`.
        collection: Title of the collection that holds them, or None.
        namespace: Owner of the collection, by default that of the first repository.
        private: Whether what is new on the Hub is private; None for the owner's default.
        license: Licence of model and export, as the Hub names it.
        dataset_license: Licence of the ranked groups.
        dry_run: Check everything and show what would be uploaded, without a network.
        output: Folder for what a dry run composes, or None.

    Raises:
        ConfigError: A value is of a wrong type, nothing is to be pushed, a place is missing or no `owner/name`, a licence is
            not spelled as the Hub spells them, or an option would do nothing.
    """

    model: str | None = option("Folder of a trained model.", default=None, is_input=True)
    repo_id: str | None = option("Repository of the model: owner/name.", default=None)
    base_model: str | None = option(
        "Hub id of the model that it was trained from; needed where that was a folder here.", default=None
    )
    evaluations: list[str] = option(
        "Results of `trl-rrtf evaluate` (.json), of this model or of the export; others are refused.",
        default_factory=list,
        is_input=True,
    )
    ranked_groups: str | None = option("Ranked groups: a file.", default=None, is_input=True)
    dataset_repo_id: str | None = option("Data set of the ranked groups: owner/name.", default=None)
    export: str | None = option("Folder of `trl-rrtf export`.", default=None, is_input=True)
    export_repo_id: str | None = option("Repository of the export: owner/name.", default=None)
    collection: str | None = option("Title of the collection that holds all of them.", default=None)
    namespace: str | None = option("Owner of the collection. Default: that of the first repository.", default=None)
    private: bool | None = option(
        "true: new repositories and the collection are private; false: they are public. Default: repositories as the owner's "
        "settings on the Hub say, the collection public.",
        default=None,
    )
    license: str | None = option("Licence of model and export, as the Hub names it (apache-2.0).", default=None)
    dataset_license: str | None = option("Licence of the ranked groups.", default=None)
    dry_run: bool = option("Check everything and show what would be uploaded; no network.", default=False)
    output: str | None = option(
        "New folder for what a dry run composes: every file as it would be uploaded.", default=None, is_output=True
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self)
        if not (self.model or self.ranked_groups or self.export):
            raise ConfigError("`model`: got nothing to push; give `--model`, `--ranked_groups` or `--export`")
        for name, place in _PLACES.items():
            self._check_place(name, place)
        if self.repo_id is not None and self.repo_id == self.export_repo_id:
            raise ConfigError(f"`export_repo_id`: {self.repo_id} is the model's repository; give the export one of its own")
        if self.base_model is not None and not is_repository_id(self.base_model):
            raise ConfigError(f"`base_model`: expected a Hub id, `owner/name`, got {self.base_model}")
        check_license(self.license, "license")
        check_license(self.dataset_license, "dataset_license")
        if not (self.model or self.export):
            refuse_idle(self, ("base_model", "license"), "neither `model` nor `export` is given")
            if self.evaluations:
                raise ConfigError("`evaluations`: neither `model` nor `export` is given, so there is nothing that they are of")
        if len(set(self.evaluations)) < len(self.evaluations):
            raise ConfigError(f"`evaluations`: expected each file once, got {' '.join(self.evaluations)}")
        if not self.ranked_groups:
            refuse_idle(self, ("dataset_license",), "`ranked_groups` is not given")
        if self.collection is None:
            refuse_idle(self, ("namespace",), "it is the collection's owner, and `collection` asks for none")
        elif not self.collection.strip():
            raise ConfigError("`collection`: expected a title, got an empty text")
        if not self.dry_run:
            refuse_idle(self, ("output",), "it takes what a dry run composes, and `dry_run` is off")

    def _check_place(self, name: str, place: str) -> None:
        source, repository = getattr(self, name), getattr(self, place)
        if source is None:
            refuse_idle(self, (place,), f"`{name}` is not given")
        elif repository is None:
            raise ConfigError(f"`{place}`: got nothing; say where on the Hub `{name}` goes (`--{place} owner/name`)")
        elif not is_repository_id(repository):
            raise ConfigError(f"`{place}`: expected `owner/name`, got {repository}")
