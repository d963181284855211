"""Near-duplicates of problem statements, by MinHash and locality-sensitive hashing (datasketch)."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.rows.records import Problem

_PERMUTATIONS = 128
_SHINGLE = 3
"""Words of a shingle."""


def statement(problem: Problem) -> str:
    """The text of a problem, without the tests that MBPP's prompts show: they are compared for themselves."""
    prompt = problem.prompt
    text = prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)
    return text.split("Your code should pass these tests:")[0]


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"[a-z0-9]+", text.lower())


class NearDuplicates:
    """Statements that were seen, and the question whether a new one is nearly one of them. Holds their signatures alone.

    Args:
        threshold: Jaccard similarity of the word shingles from which two statements are near-duplicates.

    Raises:
        ConfigError: datasketch is not installed.
    """

    def __init__(self, threshold: float) -> None:
        try:
            from datasketch import MinHashLSH
        except ImportError as error:
            raise ConfigError("near-duplicates need the package datasketch; install `trl-rrtf[filters]`") from error
        self._threshold = threshold
        # The index only proposes; `find` compares. For thresholds near 1 it has no parameters of its own.
        self._index = MinHashLSH(threshold=min(threshold, 0.95), num_perm=_PERMUTATIONS)
        self._signatures: dict[str, Any] = {}

    def find(self, text: str) -> tuple[str, float] | None:
        """The most similar statement, and how similar it is; None below the threshold."""
        signature = _signature(text)
        similar = [(signature.jaccard(self._signatures[key]), key) for key in self._index.query(signature)]
        similarity, key = max(similar, default=(0.0, ""))
        return (key, similarity) if similarity >= self._threshold else None

    def add(self, key: str, text: str) -> None:
        """Remembers a statement; a key that was there stays as it is."""
        if key not in self._signatures:
            signature = _signature(text)
            self._signatures[key] = signature
            self._index.insert(key, signature)


def _signature(text: str) -> Any:
    from datasketch import LeanMinHash, MinHash

    tokens = words(text)
    shingles = {" ".join(tokens[i : i + _SHINGLE]) for i in range(max(1, len(tokens) - _SHINGLE + 1))}
    minhash = MinHash(num_perm=_PERMUTATIONS, hashfunc=_hash)
    minhash.update_batch(shingle.encode() for shingle in shingles)
    return LeanMinHash(minhash)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little")
