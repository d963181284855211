"""Ranked groups as a data set on the Hub, with a data card and plots."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from trl_rrtf.ranking.card import GroupStatistics, data_card, draw_plots
from trl_rrtf.rows.files import check_rows, stream_rows
from trl_rrtf.rows.records import RankedGroup

_DATA_FILE = "data/train-00000-of-00001.parquet"


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
        RowError: A row breaks the format; found before anything is uploaded.
        OutputError: What stands beside the file is damaged.
    """
    from datasets import Dataset

    check_rows(input, RankedGroup)
    statistics = GroupStatistics.of(input)
    api = HfApi(token=token)
    address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with_plots = importlib.util.find_spec("matplotlib") is not None
        plots = draw_plots(statistics, Path(folder)) if with_plots else []
        card = data_card(statistics, name=address.repo_id, license=license, input=input, plots=with_plots)
        parquet = Path(folder) / "data.parquet"
        rows = Dataset.from_generator(
            _rows, gen_kwargs={"input": input}, cache_dir=str(Path(folder) / "cache"), fingerprint="ranked-groups"
        )
        rows.to_parquet(str(parquet))
        api.create_commit(
            address.repo_id,
            repo_type="dataset",
            commit_message="Upload ranked groups",
            operations=[
                CommitOperationAdd("README.md", str(card).encode()),
                CommitOperationAdd(_DATA_FILE, str(parquet)),
                *(CommitOperationAdd(path.name, str(path)) for path in plots),
            ],
        )
    return str(address)


def _rows(input: str):  # type: ignore[no-untyped-def]  # datasets reads the generator's rows as they are
    for group in stream_rows(input, RankedGroup):
        yield group.to_row()
