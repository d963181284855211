"""What a checkpoint's model says of a fixed text, kept beside it: proof, later, that its weights and settings were read right.

Versions of libraries differ in how they read a checkpoint's files, some without a word. Log-probabilities that the training
process computed, and the token ids of its tokenizer, can be compared with those of whoever loads the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trl_rrtf.errors import LoadError
from trl_rrtf.rows.files import write_json

LOG_PROBS_FILE = "log_probs.json"
"""The record's name in a checkpoint's folder."""

# Long enough that a wrong frequency of the rotary embedding shows, with the spaces and signs that tokenizers differ in.
PROBE_TEXT = '''"""Words of a text, counted."""

import re
from collections import Counter


def count_words(text: str, *, smallest: int = 1) -> dict[str, int]:
    """Returns how often each word occurs; e.g. count_words("a b a") == {"a": 2, "b": 1}."""
    words = re.findall(r"[^\\W\\d_]+", text.lower())
    return {word: count for word, count in Counter(words).items() if len(word) >= smallest}


class Text:
    def __init__(self, lines):
        self.lines = [line.rstrip("\\n") for line in lines if not line.startswith("#")]

    def longest(self):
        if not self.lines:
            raise ValueError("no line: the text is empty, don't ask for its longest line!")
        return max(range(len(self.lines)), key=lambda index: (len(self.lines[index]), -index))

    def __len__(self):\treturn 12345 * 0 + sum(map(len, self.lines))


if __name__ == "__main__":
    assert count_words("Übung macht den Meister , said 1 of 2 masters") != {}
    print(Text(["a == b\\n", "x = y ** 2  # two spaces\\n", "while i <= 10: i += 1\\n"]).longest())
'''


@dataclass
class CheckpointLogProbs:
    """The record.

    Attributes:
        text: The text.
        input_ids: Its L token ids, by the training's tokenizer.
        log_probs: L - 1 nats: the log-probability of each token after the first.
        dtype: What the model computed in, such as `float32`.
        quantized: Whether the base model was quantised while it was trained (QLoRA); an export reads it whole.
        transformers: Version of transformers that wrote the checkpoint.
    """

    text: str
    input_ids: list[int]
    log_probs: list[float]
    dtype: str
    quantized: bool
    transformers: str

    def save(self, folder: Path) -> None:
        """Writes the record into a checkpoint's folder."""
        write_json(folder / LOG_PROBS_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> CheckpointLogProbs | None:
        """Reads the record of a checkpoint, None if it has none.

        Raises:
            LoadError: The file is damaged.
        """
        path = folder / LOG_PROBS_FILE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise LoadError(f"`{path}` is damaged ({error}); copy the checkpoint again, or remove the file") from error

    def difference(self, log_probs: Sequence[float]) -> tuple[float, float]:
        """(mean, largest) difference in nats between the record and the log-probabilities of a model that was loaded."""
        differences = [abs(ours - theirs) for ours, theirs in zip(self.log_probs, log_probs, strict=True)]
        return sum(differences) / len(differences), max(differences)
