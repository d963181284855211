"""Near-duplicates of problem statements, by MinHash and locality-sensitive hashing (datasketch)."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.rows.checks import message_text
from trl_rrtf.rows.records import Problem

_PERMUTATIONS = 128
_SHINGLE = 3
"""Words of a shingle."""


def statement(problem: Problem) -> str:
    """The text of a problem, without the tests that MBPP's prompts show: they are compared for themselves.

    Raises:
        RowError: A message of the prompt is not text.
    """
    prompt = problem.prompt
    if not isinstance(prompt, str):
        where = f"problem {problem.problem_id!r}"
        prompt = "\n".join(message_text(message, where, f"prompt[{i}]") for i, message in enumerate(prompt))
    return prompt.split("Your code should pass these tests:")[0]


_WITHOUT_SPACES = {"CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
"""First words of the names of characters whose scripts put no spaces between words."""


def words(text: str) -> list[str]:
    """Lower-case words and numbers of any script; each character is one where the script puts no spaces between words."""
    if text.isascii():
        return re.findall(r"[a-z0-9]+", text.lower())
    text = unicodedata.normalize("NFKC", text).lower()
    return re.findall(r"[^ ]+", "".join(map(_spaced, text)))


def is_character(word: str) -> bool:
    """Whether a word is a character of a script without spaces."""
    return len(word) == 1 and _spaced(word) != word


@functools.cache
def _spaced(character: str) -> str:
    """A character as a part of a word, as a word of its own, or as a space between words."""
    if unicodedata.category(character)[0] not in "LNM":  # letters, numbers, and the marks that are written over letters
        return " "
    script = re.split("[ -]", unicodedata.name(character, ""))[0]
    return f" {character} " if script in _WITHOUT_SPACES else character


def runs(tokens: list[str], length: int) -> list[str]:
    """All runs of so many words, from each word on that has enough behind it.

    A character of a script without spaces counts as half a word, as most words there have two.
    """
    found = []
    for start in range(len(tokens)):
        halves, end = 0, start
        while halves < 2 * length and end < len(tokens):
            halves += 1 if is_character(tokens[end]) else 2
            end += 1
        if halves < 2 * length:
            break
        found.append(" ".join(tokens[start:end]))
    return found


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
    shingles = set(runs(tokens, _SHINGLE)) or {" ".join(tokens) or text.strip()}  # a text of signs alone has no word
    minhash = MinHash(num_perm=_PERMUTATIONS, hashfunc=_hash)
    minhash.update_batch(shingle.encode() for shingle in shingles)
    return LeanMinHash(minhash)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little")
