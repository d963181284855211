"""The Hub: which names are repositories there, how folders are uploaded, and what goes wrong in words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from trl_rrtf.errors import ConfigError, OutputError

HUB_ADDRESS = "https://huggingface.co"

NOT_PUSHED = (
    *("_*", ".*", "checkpoint-*", "torn-checkpoint-*", "runs/*", "wandb/*"),  # a training's own
    *("training_args.bin", "trainer_state.json", "optimizer*", "scheduler*", "scaler*", "rng_state*"),
    *("reference_*.json", "train_settings.json", "*.tmp", "*.lock", "*.log"),
)
"""Files of a model's folder that stay here: checkpoints, states, logs, and what holds paths or a token of this machine (the
pickled `training_args.bin` holds `hub_token`)."""

_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9.-]+")
_DATA_ON_HUB = re.compile(r"hf://datasets/(?P<id>[^/@]+/[^/@]+)(?:@.+?)?/.+")
_FILES = (".jsonl", ".json", ".gz", ".parquet", ".csv", ".txt", ".arrow")


def is_repository_id(name: str) -> bool:
    """Whether a name is spelled `owner/name`, as repositories on the Hub are."""
    return _REPOSITORY.fullmatch(name) is not None and not name.endswith((".git", ".ipynb")) and ".." not in name


def check_license(license: str | None, argument: str = "license") -> None:
    """Refuses a licence that is not spelled as the Hub's identifiers are; huggingface_hub has no list of them.

    Raises:
        ConfigError: It is not of lower-case letters, digits, `.` and `-`.
    """
    if license is not None and _LICENSE.fullmatch(license) is None:
        raise ConfigError(
            f"`{argument}`: expected one of the Hub's identifiers, in lower-case letters, digits, `.` and `-`, such as "
            f"apache-2.0, mit or other (https://huggingface.co/docs/hub/repositories-licenses), got {license!r}"
        )


def hub_id(name: str | None) -> str | None:
    """The repository on the Hub that a model's or data set's name stands for; None where it stands for none.

    What lies on this disk is local, however it is spelled. Nothing is asked of the Hub, so what only looks like an id passes.

    Args:
        name: `owner/name`, a data set's `owner/name:configuration:split` or `hf://datasets/owner/name/FILE`, or a path.
    """
    if not name or _exists(name):
        return None
    in_data_set = _DATA_ON_HUB.fullmatch(name)
    repository = in_data_set["id"] if in_data_set else name.partition(":")[0].partition("@")[0]
    is_file = not in_data_set and repository.endswith(_FILES)
    return repository if is_repository_id(repository) and not is_file else None


def hub_link(repo_id: str, repo_type: str = "model", *, text: str | None = None) -> str:
    """A link of Markdown to a repository.

    Args:
        repo_id: `owner/name`.
        repo_type: `model` or `dataset`.
        text: What is shown; None for the id.
    """
    return f"[{text or repo_id}]({HUB_ADDRESS}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id})"


def told_name(name: str) -> str:
    """What a card calls a model or data set: a path's last part (where it lies is nobody's business), or its Hub id."""
    if hub_id(name) or not (_exists(name) or name.startswith(("/", ".", "~")) or name.endswith(_FILES)):
        return name
    return Path(name).expanduser().absolute().name


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long, or no path at all
        return False


def create_repository(
    repo_id: str, *, repo_type: str = "model", private: bool | None = None, token: str | None = None, kept: str = ""
) -> str:
    """Makes sure that a repository is there and may be written; called before expensive work.

    Args:
        repo_id: `name` or `owner/name`.
        repo_type: `model` or `dataset`.
        private: Whether a new repository is private; None for the owner's default.
        token: Hub token; by default the one that is logged in.
        kept: What the error says of the work that is done.

    Returns:
        The repository's `owner/name`.

    Raises:
        OutputError: The Hub cannot be reached, or does not give it.
    """
    from huggingface_hub import create_repo

    with hub_errors(repo_id, kept):
        url = create_repo(repo_id, repo_type=repo_type, private=private, token=token, exist_ok=True)
    repo_name: str = url.repo_id
    return repo_name


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    message: str,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    ignore: Sequence[str] = (),
    replace: Sequence[str] = (),
    kept: str | None = None,
) -> str:
    """Uploads a folder in one commit; the repository is made where it is not there.

    Args:
        folder: The folder.
        repo_id: `name` or `owner/name` of the repository.
        message: Of the commit.
        repo_type: `model` or `dataset`.
        private: Whether a new repository is private; None for the owner's default.
        token: Hub token; by default the one that is logged in.
        revision: Branch to commit to; None for the main one.
        ignore: Patterns of files that stay here, such as `checkpoint-*`.
        replace: Patterns of files on the Hub that are removed in the same commit, unless the folder has them too.
        kept: What the error says of the work that is done; by default that the folder is complete.

    Returns:
        The repository's address.

    Raises:
        OutputError: The Hub cannot be reached, or refused; the folder is untouched.
    """
    from huggingface_hub import create_repo, upload_folder

    advice = f"; `{folder}` is complete, run the same command again to upload it" if kept is None else kept
    with hub_errors(repo_id, advice):
        address = create_repo(repo_id, repo_type=repo_type, private=private, token=token, exist_ok=True)
        upload_folder(
            repo_id=address.repo_id,
            repo_type=repo_type,
            folder_path=folder,
            commit_message=message,
            token=token,
            revision=revision,
            ignore_patterns=list(ignore),
            delete_patterns=list(replace) or None,
        )
    return str(address)


@contextlib.contextmanager
def hub_errors(name: str, kept: str = "") -> Iterator[None]:
    """Inside, whatever the Hub's client raises becomes an error of this package.

    Args:
        name: What is written there.
        kept: What the error says of the work that is done.

    Raises:
        OutputError: The Hub cannot be reached, or refused.
    """
    try:
        yield
    except Exception as error:  # the Hub's client raises many kinds; each means that the upload did not happen
        raise OutputError(
            f"`{name}` on the Hub cannot be written ({type(error).__name__}: {error}); check the network, the name and the "
            f"token{kept}"
        ) from error
