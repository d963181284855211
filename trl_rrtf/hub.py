"""Ranked groups as a data set on the Hub, with a data card."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, DatasetCard, DatasetCardData, HfApi

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import RankedGroup
from trl_rrtf.row_files import read_rows

_DATA_FILE = "data/train-00000-of-00001.parquet"


def push_ranked_groups(
    source: str, repo_id: str, *, license: str | None = None, private: bool | None = None, token: str | None = None
) -> str:
    """Uploads ranked groups as one Parquet file with a data card, in one commit.

    Args:
        source: Ranked groups, `.jsonl` or `.parquet`. The settings that `trl-rrtf rank` leaves beside them go into the card.
        repo_id: `name` or `owner/name` of the data set.
        license: Licence of the data, as the Hub names it (`apache-2.0`).
        private: Whether a new repository is private; None for the owner's default.
        token: Hub token; by default the one that is logged in.

    Returns:
        The data set's address.

    Raises:
        LoadError: The file is not there.
        RowError: A row breaks the format; found before anything is uploaded.
    """
    groups = read_rows(source, RankedGroup)
    if not groups:
        raise ConfigError(f"`source`: `{source}` has no row; give at least one ranked group")
    settings_file = Path(f"{source}.settings.json")
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.exists() else {}
    api = HfApi(token=token)
    address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    card = ranked_groups_card(groups, name=address.repo_id, license=license, settings=settings)
    api.create_commit(
        address.repo_id,
        repo_type="dataset",
        commit_message="Upload ranked groups",
        operations=[
            CommitOperationAdd("README.md", str(card).encode()),
            CommitOperationAdd(_DATA_FILE, _parquet(groups)),
        ],
    )
    return str(address)


def ranked_groups_card(
    groups: Sequence[RankedGroup], *, name: str, license: str | None, settings: dict[str, Any]
) -> DatasetCard:
    """The data card: what a row is, how many there are, how they were made."""
    candidates = [len(group.scores) for group in groups]
    sources = Counter(source for group in groups for source in group.sources or ["not told"] * len(group.scores))
    with_pair = sum(len(set(group.scores)) > 1 for group in groups)
    data = DatasetCardData(
        license=license,
        pretty_name=name.split("/")[-1],
        task_categories=["text-generation"],
        tags=["trl", "rrtf", "preference", "code"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    card: DatasetCard = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("ranked_groups_card.md")),
        name=name,
        num_groups=len(groups),
        num_candidates=sum(candidates),
        smallest=min(candidates),
        largest=max(candidates),
        with_pair=with_pair,
        sources=dict(sources.most_common()),
        settings={key: value for key, value in sorted(settings.items()) if not str(value).startswith("/")},
    )
    return card


def _parquet(groups: Sequence[RankedGroup]) -> bytes:
    from datasets import Dataset

    buffer = io.BytesIO()
    Dataset.from_list([group.to_row() for group in groups]).to_parquet(buffer)
    return buffer.getvalue()
