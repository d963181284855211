"""Inputs that no test holds, on which candidates can be compared with each other: AlphaCode's and CodeT's idea.

They come from what a model may see: the public tests' inputs, else the examples of the prompt, else the signature in it; and
from seeded mutations of these. No expected value is needed, and no hidden test is looked at: its inputs would tell the choice
what it is measured by.
"""

from __future__ import annotations

import ast
import builtins
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from trl_rrtf.python_source import parse_program
from trl_rrtf.rows import checks
from trl_rrtf.rows.records import Problem, UnitTest

_LONGEST_CALL = 1_000
"""Characters within which a call in a prompt ends."""

_ATTEMPTS = 20
"""Mutations that are tried for each input that is wanted: short inputs have few different ones."""

_CONVERSIONS = (
    *("bool", "bytes", "dict", "float", "frozenset", "int", "list"),
    *("next", "repr", "round", "set", "sorted", "str", "tuple"),
)
"""Builtin functions that a test may put around a call and that stay there."""


@dataclass(frozen=True)
class GeneratedInputs:
    """What the candidates of a problem are run on.

    Attributes:
        kind: What the texts are: Python expressions such as `add(1, 2)`, or standard input.
        texts: The inputs, each once; none where nothing shows what an input looks like.
        origin: What they were made from: `public tests`, `prompt`, `signature` or `nothing`.
    """

    kind: Literal["expression", "stdin"]
    texts: list[str]
    origin: str


def generate_inputs(problem: Problem, public: Sequence[UnitTest], count: int, seed: int) -> GeneratedInputs:
    """Makes inputs for the candidates of a problem.

    Those that are given (by public tests, or by examples in the prompt) come first, then mutations of them.

    Args:
        problem: The problem; its `tests` are not looked at.
        public: The tests that a model may see; of these the inputs alone.
        count: How many inputs; fewer where mutation finds no more.
        seed: The same seed gives the same inputs to the same problem.
    """
    rng = random.Random(f"{seed}/{problem.problem_id}")
    programs = [test.stdin or "" for test in public if test.kind == "stdio"]
    calls = [call for test in public for call in _calls_of_test(test, problem.entry_point)]
    if calls:
        return GeneratedInputs("expression", _several(calls, count, rng), "public tests")
    if programs:
        return GeneratedInputs("stdin", _several(map(_Stdin, programs), count, rng), "public tests")
    prompt = "\n".join(checks.prompt_texts(problem.prompt))
    if not problem.entry_point:
        return GeneratedInputs("stdin", _several(map(_Stdin, _stdin_examples(prompt)), count, rng), "prompt")
    name = problem.entry_point.removeprefix("Solution().")
    if calls := list(_calls_in_text(prompt, name)):
        return GeneratedInputs("expression", _several(calls, count, rng), "prompt")
    if draw := _signature(prompt, name):
        return GeneratedInputs("expression", _several([draw(rng) for _ in range(count)], count, rng), "signature")
    return GeneratedInputs("expression", [], "nothing")


def _several(examples: Iterable[_Call | _Stdin], count: int, rng: random.Random) -> list[str]:
    """The examples, then mutations of them, until there are enough."""
    examples = [example for example in examples if example.text() is not None]
    texts = dict.fromkeys(text for example in examples if (text := example.text()) is not None)
    for _ in range(_ATTEMPTS * count if examples else 0):
        if len(texts) >= count:
            break
        if (text := rng.choice(examples).mutated(rng).text()) is not None:
            texts[text] = None
    return list(texts)[:count]


# --- Calls ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A call of the function under test with literal arguments, in what a test puts around it: `sorted(` and `)`."""

    function: str
    arguments: list[Any]
    keywords: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    after: str = ""

    def text(self) -> str | None:
        """As an expression; None where an argument has none (infinity, a number of 5,000 digits)."""
        try:
            arguments = list(map(_literal, self.arguments))
            arguments += [f"{name}={_literal(value)}" for name, value in self.keywords.items()]
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        return f"{self.before}{self.function}({', '.join(arguments)}){self.after}"

    def mutated(self, rng: random.Random) -> _Call:
        """One to three changes of arguments, each of its own type."""
        arguments, keywords = list(self.arguments), dict(self.keywords)
        places: list[int | str] = [*range(len(arguments)), *keywords]
        for _ in range(rng.randint(1, 3) if places else 0):
            place = rng.choice(places)
            if isinstance(place, int):
                arguments[place] = _mutated(arguments[place], rng)
            else:
                keywords[place] = _mutated(keywords[place], rng)
        return replace(self, arguments=arguments, keywords=keywords)


def _calls_of_test(test: UnitTest, entry_point: str | None) -> Iterator[_Call]:
    name = entry_point and entry_point.removeprefix("Solution().")
    if test.kind == "call" and name:
        try:
            arguments = json.loads(test.input or "")
        except (ValueError, RecursionError):  # a number of 5,000 digits
            return
        yield _Call(name, arguments)
    elif test.kind in ("assert", "check"):
        try:
            tree = parse_program(test.code or "")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
        yield from _calls_in_tree(tree, name, is_check=test.kind == "check")


def _calls_in_tree(tree: ast.AST, name: str | None, *, is_check: bool) -> Iterator[_Call]:
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        is_tested = called == name if name else isinstance(node.func, ast.Name) and not hasattr(builtins, called)
        if is_check and called == "candidate":
            is_tested, node.func = True, ast.Name(id=name or called, ctx=ast.Load())
        if is_tested and (call := _literal_call(node)) is not None:
            before, after = _around(node, parents)
            yield replace(call, before=before, after=after)


def _around(node: ast.expr, parents: dict[ast.AST, ast.AST]) -> tuple[str, str]:
    """What a test makes of a result before it compares it: `list(` and `)` of a generator, `.x` of an object."""
    before, after = "", ""
    while True:
        parent = parents.get(node)
        call = parents.get(parent) if isinstance(parent, ast.Attribute) else parent
        if isinstance(parent, ast.Attribute) and not (isinstance(call, ast.Call) and call.func is parent):
            after, node = f"{after}.{parent.attr}", parent
            continue
        if not isinstance(call, ast.Call) or (rest := _literal_arguments(call, node)) is None:
            return before, after
        if isinstance(parent, ast.Attribute):  # a method of the result
            after += f".{parent.attr}({', '.join(rest)})"
        elif call.func is node:
            after += f"({', '.join(rest)})"
        elif call.args[:1] == [node] and _converts(call.func):
            before, after = f"{ast.unparse(call.func)}({before}", f"{after}{''.join(f', {text}' for text in rest)})"
        else:
            return before, after
        node = call


def _literal_arguments(call: ast.Call, node: ast.expr) -> list[str] | None:
    """A call's arguments beside a node, as code; None where they depend on anything else."""
    arguments = [argument for argument in call.args if argument is not node]
    values = [*arguments, *(keyword.value for keyword in call.keywords)]
    if not all(map(_is_literal, values)) or not all(keyword.arg for keyword in call.keywords):
        return None
    return [*map(ast.unparse, arguments), *(f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in call.keywords)]


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _converts(function: ast.expr) -> bool:
    """Whether a function keeps what a value holds, such as `list` or `", ".join`; `len` and `isinstance` do not."""
    if isinstance(function, ast.Attribute):
        return function.attr == "join" and isinstance(function.value, ast.Constant)
    return isinstance(function, ast.Name) and function.id in _CONVERSIONS


def _literal_call(node: ast.Call) -> _Call | None:
    """The call, if all that it depends on stands in it."""
    if any(isinstance(part, ast.Name) for part in ast.walk(node.func) if part is not node.func) and not _is_solution(node.func):
        return None
    try:
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    if len(keywords) < len(node.keywords):  # **keywords
        return None
    return _Call(ast.unparse(node.func), arguments, keywords)


def _is_solution(function: ast.expr) -> bool:
    return ast.unparse(function).startswith("Solution().")


def _calls_in_text(text: str, name: str) -> Iterator[_Call]:
    """Calls such as `add(1, 2)`, wherever they stand in a statement."""
    for match in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text):
        if (node := _first_that_parses(text, match.start(), "{}")) is not None:
            call = next((part for part in ast.walk(node) if isinstance(part, ast.Call)), None)
            if call is not None and (found := _literal_call(call)) is not None:
                yield found


def _first_that_parses(text: str, start: int, form: str) -> ast.Module | None:
    """The shortest code from a place to a closing bracket; `form` is what is put around it."""
    for end in re.finditer(r"\)", text[start : start + _LONGEST_CALL]):
        try:
            return parse_program(form.format(text[start : start + end.end()]))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def _literal(value: Any) -> str:
    """Python's text for a value; of equal values the same one, also where sets stand in another order in another process."""
    if isinstance(value, set) and value:
        return f"{{{', '.join(sorted(map(_literal, value)))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    text = repr(value)
    ast.literal_eval(text)
    return text


# --- Values ---------------------------------------------------------------------------------------------------------------


def _mutated(value: Any, rng: random.Random) -> Any:
    """Another value of the same type, not much larger; types that are not known stay as they are."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, 0, -value, value * 2, rng.randint(-abs(value) - 3, abs(value) + 3)])
    if isinstance(value, float):
        return rng.choice([value + 1.0, value - 0.5, 0.0, -value, round(value * rng.uniform(0.0, 2.0), 3)])
    if isinstance(value, str):
        return "".join(_mutated_items(list(value), rng, _another_character))
    if isinstance(value, list):
        return _mutated_items(value, rng, _mutated)
    if isinstance(value, tuple):  # its length is part of its type
        place = rng.randrange(len(value)) if value else 0
        return tuple(_mutated(entry, rng) if i == place else entry for i, entry in enumerate(value))
    if isinstance(value, dict) and value:
        changed = rng.choice(list(value))
        if rng.random() < 0.3:
            return {key: entry for key, entry in value.items() if key != changed}
        return {**value, changed: _mutated(value[changed], rng)}
    if isinstance(value, set) and value:
        return set(_mutated_items(sorted(value, key=repr), rng, _mutated))
    return value


def _another_character(character: str, rng: random.Random) -> str:
    """One of the same kind."""
    if character.isdigit():
        return rng.choice("0123456789")
    if character.isalpha():
        return rng.choice([character.swapcase(), rng.choice("abcdefghijklmnopqrstuvwxyz")])[:1]
    return character


def _mutated_items(items: list[Any], rng: random.Random, mutate: Callable[[Any, random.Random], Any]) -> list[Any]:
    """A list with one item changed, dropped, doubled or moved; or shuffled, turned round, or empty."""
    if not items:
        return items
    items, place = list(items), rng.randrange(len(items))
    change = rng.choice(["item", "item", "item", "drop", "double", "swap", "shuffle", "turn", "empty"])
    if change == "item":
        items[place] = mutate(items[place], rng)
    elif change == "drop":
        del items[place]
    elif change == "double":
        items.insert(place, items[place])
    elif change == "swap":
        other = rng.randrange(len(items))
        items[place], items[other] = items[other], items[place]
    elif change == "shuffle":
        rng.shuffle(items)
    elif change == "turn":
        items.reverse()
    else:
        items.clear()
    return items


# --- Signatures -----------------------------------------------------------------------------------------------------------

_Draw = Callable[[random.Random], Any]


def _signature(prompt: str, name: str) -> Callable[[random.Random], _Call] | None:
    """Draws calls from the types in a prompt's `def name(...)`; None where it has none, or one that is not known."""
    for match in re.finditer(rf"\bdef {re.escape(name)}\(", prompt):
        tree = _first_that_parses(prompt, match.start(), "{}: pass")
        function = tree.body[0] if tree and tree.body else None
        if not isinstance(function, ast.FunctionDef):
            continue
        parameters = [parameter for parameter in function.args.args if parameter.arg != "self"]
        draws = [_draw_of(parameter.annotation) for parameter in parameters]
        known = [draw for draw in draws if draw is not None]
        if parameters and len(known) == len(draws):
            return lambda rng: _Call(name, [draw(rng) for draw in known])
    return None


def _draw_of(annotation: ast.expr | None) -> _Draw | None:
    """Draws values of an annotation's type."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):  # "list[int]"
        try:
            return _draw_of(ast.parse(annotation.value, mode="eval").body)
        except (SyntaxError, ValueError):
            return None
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):  # int | None
        return _draw_of(annotation.left) or _draw_of(annotation.right)
    if isinstance(annotation, ast.Subscript):
        entries = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return _draw_of_container(_last_name(annotation.value), entries)
    return _SIMPLE.get(_last_name(annotation))


def _last_name(node: ast.expr | None) -> str:
    """`list` of `list` and of `typing.List`."""
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")).lower()


_SIMPLE: dict[str, _Draw] = {
    "int": lambda rng: rng.choice([0, 1, 2, rng.randint(-10, 10), rng.randint(0, 100)]),
    "float": lambda rng: rng.choice([0.0, 1.0, round(rng.uniform(-10, 10), 2)]),
    "bool": lambda rng: rng.random() < 0.5,
    "str": lambda rng: "".join(rng.choices("abcABC xyz12", k=rng.randint(0, 8))),
}


def _draw_of_container(name: str, entries: list[ast.expr]) -> _Draw | None:
    draws = [draw for entry in entries if (draw := _draw_of(entry)) is not None]
    repeats = isinstance(entries[-1], ast.Constant) and entries[-1].value is Ellipsis
    if len(draws) + repeats < len(entries):
        return None
    first = draws[0] if draws else None
    if first is None:
        return None
    if name == "optional":
        return first
    if name in ("list", "sequence", "iterable") or (name == "tuple" and repeats):
        make = tuple if name == "tuple" else list
        return lambda rng: make([first(rng) for _ in range(rng.randint(0, 6))])
    if name == "tuple":
        return lambda rng: tuple(draw(rng) for draw in draws)
    if name == "set":
        return lambda rng: {first(rng) for _ in range(rng.randint(1, 6))}  # `set()` is no literal
    if name in ("dict", "mapping") and len(draws) == 2:
        return lambda rng: {first(rng): draws[1](rng) for _ in range(rng.randint(0, 4))}
    return None


# --- Standard input -------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_HEADING = r"^[ \t#*-]*(?:sample |example )?{}(?: ?#?\d+)?[ \t:*-]*$"
_EXAMPLE = re.compile(
    _HEADING.format("input") + r"\n(?P<input>.*?)" + _HEADING.format("output"), re.IGNORECASE | re.MULTILINE | re.DOTALL
)


def _stdin_examples(prompt: str) -> list[str]:
    """What stands between the headings `Sample Input` and `Sample Output`, or `Input` and `Output`, of a contest's statement.

    Many statements describe the input under the same heading: what ends in a full stop is prose.
    """
    found = [match["input"].strip("\n `") for match in _EXAMPLE.finditer(prompt)]
    return [f"{text}\n" for text in found if text.strip() and not text.rstrip().endswith((".", ":"))]


@dataclass(frozen=True)
class _Stdin:
    """Lines of standard input."""

    content: str

    def text(self) -> str:
        """The input itself."""
        return self.content

    def mutated(self, rng: random.Random) -> _Stdin:
        """One to three changes that keep the lines and their numbers of values, and what seems to count these."""
        lines = [re.split(r"(\s+)", line) for line in self.content.split("\n")]
        free = [
            (i, j)
            for i, line in enumerate(lines)
            for j, token in enumerate(line)
            if token.strip() and not _is_count(token, i, lines)
        ]
        for _ in range(rng.randint(1, 3) if free else 0):
            i, j = rng.choice(free)
            same_line = [place for place in free if place[0] == i]
            if len(same_line) > 1 and rng.random() < 0.3:
                other = rng.choice(same_line)[1]
                lines[i][j], lines[i][other] = lines[i][other], lines[i][j]
            else:
                lines[i][j] = self._another_token(lines[i][j], rng)
        return _Stdin("\n".join("".join(line) for line in lines))

    def _another_token(self, token: str, rng: random.Random) -> str:
        """A number in the range of the numbers here, or a word of the same length."""
        if not _NUMBER.fullmatch(token):
            letters = sorted({character for word in self.content.split() if not _NUMBER.fullmatch(word) for character in word})
            place = rng.randrange(len(token))
            return token[:place] + rng.choice(letters) + token[place + 1 :]
        if "." in token:
            return f"{float(token) * rng.uniform(0.5, 1.5):.{len(token.split('.')[1])}f}"
        numbers = [int(word) for word in self.content.split() if _NUMBER.fullmatch(word) and "." not in word]
        low, high = min(numbers), max(numbers)
        number = rng.choice([int(token) + 1, int(token) - 1, rng.randint(low, high), rng.randint(low, high)])
        return str(max(low, number) if low >= 0 else number)


def _is_count(token: str, line: int, lines: list[list[str]]) -> bool:
    """Whether a number seems to say how many lines or values follow: a program would read past the end."""
    if not token.isdigit():
        return False
    after = [words for tokens in lines[line + 1 :] if (words := "".join(tokens).split())]
    if not after:
        return False
    number = int(token)
    counts_lines = number == len(after) or (line == 0 and number > 0 and len(after) % number == 0)
    return counts_lines or number == len(after[0]) or (len(after[0]) == 1 and number == len(after[0][0]))
