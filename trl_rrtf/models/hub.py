"""Folders with a model, on the Hub: what goes wrong there is told, and what lies on the disk is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from trl_rrtf.errors import OutputError


def create_repository(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Makes sure that a model repository is there and may be written; called before expensive work.

    Args:
        repo_id: `name` or `owner/name`.
        private: Whether a new repository is private; None for the owner's default.
        token: Hub token; by default the one that is logged in.

    Returns:
        The repository's `owner/name`.

    Raises:
        OutputError: The Hub cannot be reached, or does not give it.
    """
    from huggingface_hub import create_repo

    with _hub_errors(repo_id):
        repo_name: str = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    return repo_name


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    message: str,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    ignore: Sequence[str] = (),
) -> str:
    """Uploads a folder in one commit; the repository is made where it is not there.

    Args:
        folder: The folder.
        repo_id: `name` or `owner/name` of the model repository.
        message: Of the commit.
        private: Whether a new repository is private; None for the owner's default.
        token: Hub token; by default the one that is logged in.
        revision: Branch to commit to; None for the main one.
        ignore: Patterns of files that stay here, such as `checkpoint-*`.

    Returns:
        The repository's address.

    Raises:
        OutputError: The Hub cannot be reached, or refused; the folder is untouched.
    """
    from huggingface_hub import create_repo, upload_folder

    with _hub_errors(repo_id, f"; `{folder}` is complete, run the same command again to upload it"):
        address = create_repo(repo_id, private=private, token=token, exist_ok=True)
        upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            commit_message=message,
            token=token,
            revision=revision,
            ignore_patterns=list(ignore),
        )
    return str(address)


@contextlib.contextmanager
def _hub_errors(repo_id: str, kept: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the Hub's client raises many kinds; each means that the upload did not happen
        raise OutputError(
            f"`{repo_id}` on the Hub cannot be written ({type(error).__name__}: {error}); check the network, the name and the "
            f"token{kept}"
        ) from error
