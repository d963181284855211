"""What lies around the code in a model's answer: thinking, fences, wrappers, words.

Nothing here knows Python's grammar; `extraction` judges which of the blocks found here is the program. Every expression is
anchored at the start of a line, and goes over no line end, or begins with a fixed text: the time grows with the length only.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

_SPECIAL_TOKENS = re.compile(r"<\|[\w ]+\|>|<\uff5c[\w\u2581 ]+\uff5c>|</s>|### Response:?")
_END_OF_TURN = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text|return)\|>|<\uff5cend\u2581of\u2581sentence\uff5c>")

# Not between quotes or backticks: there the tag is only mentioned.
_THINKING_TAG = re.compile(
    r"(?<![\"'`])(?:</?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|seed:think)>"
    r"|\[/?THINK\]|◁/?think▷|<\|(?:begin|end)_of_thought\|>)(?![\"'`])",
    re.IGNORECASE,
)
# gpt-oss thinks in a channel of its own; without its special tokens only the names of role and channel are left.
_FINAL_CHANNEL = re.compile(r"<\|channel\|>final[^<]*<\|message\|>|assistantfinal")

_FENCE_LINE = re.compile(r"([ \t]*)(?:```+|~~~+)[ \t]*([\w+-]*)")
_FENCE_BEHIND_WORDS = re.compile(r"```(?:python3?|py)[ \t]*$", re.IGNORECASE)
_PYTHON_TAGS = {"python", "py", "python3", "py3", "pycon", "ipython", "ipython3"}
_NO_TAGS = {"", "text", "txt", "plaintext", "plain", "code"}

_WRAPPER = re.compile(
    r"^[ \t]*\[/?(?:BEGIN|DONE|PYTHON|TESTS|CODE|SOLUTION|ANSWER)\]"
    r"|(?<![\"'`])</?(?:answer|code|solution|program|python)>(?![\"'`])",
    re.MULTILINE,
)
_JSON_OBJECT = re.compile(r"^[ \t]*\{", re.MULTILINE)
_JSON_FIELDS = ("code", "solution", "program", "answer")

# A line of code that stands among prose without a fence; stricter than Python, as "if it is so" is prose.
_CODE_LINE = re.compile(
    r"import \w|from [\w.]+ import\b|(?:async )?def \w|class \w+\s*[:(]|@\w|>>> "
    r"|(?:if|for|while|with|try|except|elif|else|finally|async)\b.*:\s*(?:#.*)?$"
    r"|(?:return|raise|yield|del|global|nonlocal|assert)\b|(?:pass|break|continue)$"
    r"|[\w.\[\]'\"*]+(?:, ?[\w.\[\]'\"*]+)*(?:: ?[\w\[\], .]+)? ?[-+*/%&|^@]{0,2}=(?!=)"
    r"|[a-z_][\w.]*\(.*\)\s*(?:#.*)?$"
)
_INSIDE_CODE = re.compile(r"\s|$|#(?!#)|[)\]}'\"]|\.\.\.")  # blank, indented, a comment, a closing bracket, a text
_LONGEST_CODE_LINE = 300  # characters of a line that are looked at


@dataclass(frozen=True)
class Block:
    """A piece of an answer that may be code.

    Attributes:
        code: The text, without common indentation.
        announcement: The prose before it.
        is_fenced: Whether a fence says that it is code; otherwise it is what stands between fences, prose included.
        is_tagged: Whether the fence names Python as its language.
    """

    code: str
    announcement: str = ""
    is_fenced: bool = False
    is_tagged: bool = False


def clean_text(text: str) -> str:
    """The text with plain line ends, and without NUL bytes and lone surrogates, which no file of programs can hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").replace("\ufeff", "")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_thinking(text: str) -> tuple[str, str]:
    """The answer and the thinking, both without special tokens and what follows the end of the model's turn.

    A closing tag without an opening one ends thinking that began in the prompt; thinking that is not closed was cut off.
    """
    end = _END_OF_TURN.search(text)
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    final = list(_FINAL_CHANNEL.finditer(text))
    if final:
        return _without_tokens(text[final[-1].end() :]), _without_tokens(text[: final[-1].start()])
    if text.lstrip().startswith("<|channel|>analysis"):
        return "", _without_tokens(text)
    answer: list[str] = []
    thinking: list[str] = []
    start, is_open = 0, False
    for tag in _THINKING_TAG.finditer(text):
        is_closing = "/" in tag[0] or tag[0].startswith("<|end")
        (thinking if is_open or is_closing else answer).append(text[start : tag.start()])
        start, is_open = tag.end(), not is_closing
    (thinking if is_open else answer).append(text[start:])
    return _without_tokens("\n".join(answer)), _without_tokens("\n".join(thinking))


def _without_tokens(text: str) -> str:
    return _SPECIAL_TOKENS.sub("", text)


def find_blocks(text: str) -> list[Block]:
    """The fenced Python blocks of a text and what stands between them, in order."""
    blocks: list[Block] = []
    for block in _fenced_and_between(text):
        if block.is_fenced:
            blocks.append(block)
        else:
            blocks += _unwrapped(block.code)
    return [_announced(block, before) for before, block in zip([None, *blocks], blocks, strict=False) if block.code.strip()]


def _announced(block: Block, before: Block | None) -> Block:
    is_prose = before is not None and not before.is_fenced
    return Block(block.code, before.code if before and is_prose else "", block.is_fenced, block.is_tagged)


def _fenced_and_between(text: str) -> Iterator[Block]:
    """Goes through the lines; a fence that is not closed ends where the next one names a language, or with the text."""
    lines: list[str] = []
    tag, indentation = None, 0  # of the fence that is open
    for line in text.split("\n"):
        fence = _FENCE_LINE.match(line)
        if tag is None:
            words = None if fence else _FENCE_BEHIND_WORDS.search(line)
            if fence or words:
                yield Block("\n".join([*lines, line[: words.start()]] if words else lines))
                lines, tag, indentation = [], fence[2].lower() if fence else "python", len(fence[1]) if fence else 0
            else:
                lines.append(line)
        elif fence and len(fence[1]) < indentation + 4:  # a deeper one is an example in a docstring
            yield _fenced(lines, tag)
            lines, tag, indentation = [], fence[2].lower() or None, len(fence[1])
        elif line.endswith("```") and not fence:
            yield _fenced([*lines, line.rstrip("`")], tag)
            lines, tag = [], None
        else:
            lines.append(line)
    yield _fenced(lines, tag) if tag is not None else Block("\n".join(lines))


def _fenced(lines: list[str], tag: str) -> Block:
    code = "\n".join(lines)
    if tag == "json" or code.lstrip().startswith('{"'):
        return Block(code)  # looked into like text
    if tag not in _PYTHON_TAGS | _NO_TAGS:
        return Block("", is_fenced=True)
    return Block(textwrap.dedent(code), is_fenced=True, is_tagged=tag in _PYTHON_TAGS)


def _unwrapped(text: str) -> list[Block]:
    """What stands between the wrappers (`[BEGIN]`, `<answer>`) of a text without fences, and the code of a JSON object."""
    start = _JSON_OBJECT.search(text)
    if start:
        code, end = _code_in_json(text, start.end() - 1)
        if code:
            inside = find_blocks(code) if "```" in code else [Block(code, is_fenced=True)]
            return [Block(text[: start.start()]), *inside, Block(text[end:])]
    return [Block(part) for part in _WRAPPER.split(text)]


def _code_in_json(text: str, start: int) -> tuple[str, int]:
    """The program in a field of the JSON object that begins there, and where the object ends; "" where there is none."""
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)  # not strict: models write line ends as they are
    except (ValueError, RecursionError):
        return "", start
    code = next((value[field] for field in _JSON_FIELDS if isinstance(value.get(field), str)), "")
    return code, end


def code_runs(block: Block) -> list[Block]:
    """The runs of lines that look like code in a text without fences, each with the prose before it."""
    runs: list[Block] = []
    prose: list[str] = []
    code: list[str] = []
    for line in [*block.code.split("\n"), "End."]:
        start = line[:_LONGEST_CODE_LINE]
        if _CODE_LINE.match(start) or (code and _INSIDE_CODE.match(start)):
            code.append(line)
            continue
        if code:
            runs.append(Block("\n".join(code), "\n".join(prose)))
            prose, code = [], []
        prose.append(line)
    return runs


def without_fences(text: str) -> str:
    """The text without its fences, for code that they cut into pieces."""
    return text.replace("```python", "").replace("```", "").strip("\n")
