"""Ranked groups as a data set on the Hub, with a data card and plots."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from trl_rrtf.models.hub import check_license, create_repository, push_folder
from trl_rrtf.models.private_text import own_places, refuse_private_rows, refuse_private_text
from trl_rrtf.ranking.card import GroupStatistics, data_card, draw_plots
from trl_rrtf.rows.files import check_rows, output_errors, stream_rows, write_text
from trl_rrtf.rows.records import RankedGroup

_DATA_FILE = "data/train-00000-of-00001.parquet"

COMMIT_MESSAGE = "Upload ranked groups"


def push_ranked_groups(
    input: str, repo_id: str, *, license: str | None = None, private: bool | None = None, token: str | None = None
) -> str:
    """Uploads ranked groups as one Parquet file with a data card (and plots, with matplotlib installed), in one commit.

    Args:
        input: Ranked groups, `.jsonl` or `.parquet`. The settings that `trl-rrtf rank` leaves beside them go into the card.
        repo_id: `name` or `owner/name` of the data set.
        license: Licence of the data, as the Hub names it (`apache-2.0`).
        private: Whether a new repository is private; None for the owner's default.
        token: Hub token; by default the one that is logged in.

    Returns:
        The data set's address.

    Raises:
        LoadError: The file is not there, or has no row.
        ConfigError: The licence is not spelled as the Hub spells them, or the data card would tell a path of this machine.
        RowError: A row breaks the format, or holds a token of the Hub or a path of this machine; found before anything is
            uploaded.
        OutputError: What stands beside the file is damaged, or the Hub cannot be reached, or refused.
    """
    check_license(license)
    check_rows(input, RankedGroup)
    refuse_private_rows(input, own_places(input))
    with tempfile.TemporaryDirectory() as folder:
        name = create_repository(repo_id, repo_type="dataset", private=private, token=token)
        write_data_set(input, Path(folder), repo_id=name, license=license)
        return push_folder(
            Path(folder),
            name,
            repo_type="dataset",
            message=COMMIT_MESSAGE,
            private=private,
            token=token,
            kept="; nothing of it is uploaded, run the same command again",
        )


def write_data_set(input: str, folder: Path, *, repo_id: str, license: str | None) -> None:
    """Writes what the Hub's data set holds: rows as Parquet, the data card, and plots where matplotlib is installed.

    Args:
        input: Ranked groups that were checked.
        folder: An empty folder.
        repo_id: `owner/name` of the data set.
        license: Licence of the data, as the Hub names it.

    Raises:
        ConfigError: The data card would tell a path of this machine.
        OutputError: What stands beside the file is damaged, or the folder cannot be written.
    """
    from datasets import Dataset

    statistics = GroupStatistics.of(input)
    with_plots = importlib.util.find_spec("matplotlib") is not None
    card = data_card(statistics, name=repo_id, repo_id=repo_id, license=license, input=input, plots=with_plots)
    refuse_private_text(str(card), f"data card of {input}", own_places(input))
    write_text(folder / "README.md", str(card))
    with output_errors(folder), tempfile.TemporaryDirectory() as cache:
        if with_plots:
            draw_plots(statistics, folder)
        (folder / _DATA_FILE).parent.mkdir()
        rows = Dataset.from_generator(_rows, gen_kwargs={"input": input}, cache_dir=cache, fingerprint="ranked-groups")
        rows.to_parquet(str(folder / _DATA_FILE))


def _rows(input: str):  # type: ignore[no-untyped-def]  # datasets reads the generator's rows as they are
    for group in stream_rows(input, RankedGroup):
        yield group.to_row()
