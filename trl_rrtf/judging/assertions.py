"""Test code, taken apart: which statements count as a test, and which names it expects from the candidate."""

from __future__ import annotations

import ast
import builtins
import sys

from trl_rrtf.judging.wire.protocol import RECORDER
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.records import Problem

_CATCHERS = {"AssertionError", "Exception", "BaseException"}
_MODULE_ALIASES = {"np": "numpy", "pd": "pandas"}
_TRUSTED_NAMES = {
    "isclose": "math",
    **dict.fromkeys(("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"), "collections"),
    **{"Decimal": "decimal", "Fraction": "fractions", "reduce": "functools"},
}
"""Names that tests use without importing them, from the candidate's imports; they get the real ones."""


def record_assertions(code: str) -> ast.Module:
    """Puts the recorder into test code, so that each assertion counts and one that fails does not end the rest.

    Assertions are `assert` statements, comparisons that stand alone, calls of methods or functions whose names begin with
    `assert`, and `with` blocks of such calls or of `raises`; also in loops and helper functions. A `try` that would catch the
    error of an assertion in it stays as it is: there, a failure is part of the test. One that ends in `assert False` unless
    something is raised is one assertion.

    Raises:
        SyntaxError: The text does not compile.
    """
    tree = parse_program(code)
    tree.body = _without_main_guard(tree.body)
    _Record(_asserting_functions(tree)).visit(tree)
    return tell_statements(tree)


def _without_main_guard(body: list[ast.stmt]) -> list[ast.stmt]:
    """The code as it is when it is run itself, without what would start a test runner."""
    kept: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If) and _is_main_guard(statement.test):
            kept += _without_main_guard(statement.body)
        elif not (isinstance(statement, ast.Expr) and _starts_a_runner(statement.value)):
            kept.append(statement)
    return kept


def _is_main_guard(test: ast.expr) -> bool:
    sides = [test.left, *test.comparators] if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq) else []
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)


def _starts_a_runner(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and any(
        isinstance(node, ast.Attribute)
        and node.attr == "main"
        and isinstance(node.value, ast.Name)
        and node.value.id in ("unittest", "pytest")
        for node in ast.walk(value)
    )


def _asserting_functions(tree: ast.Module) -> set[str]:
    """Names of functions and methods that hold assertions: each of these counts, not the call."""
    return {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, _FUNCTIONS)
        and any(isinstance(node, ast.Assert) or _called_name(node).startswith("assert") for node in ast.walk(function))
    }


def tell_statements(tree: ast.Module) -> ast.Module:
    """Tells the recorder when a statement has ended: what the candidate changed in place in it arrives then."""
    _TellStatements().visit(tree)
    return ast.fix_missing_locations(tree)


def count_assertions(recorded: ast.Module) -> int:
    """How many assertions stand in code that records them, those in loops once."""
    return sum(map(is_recorded, ast.walk(recorded)))


def is_recorded(node: ast.AST) -> bool:
    """Whether a statement is the recorder around an assertion."""
    return isinstance(node, ast.With) and isinstance(name := node.items[0].context_expr, ast.Name) and name.id == RECORDER


class _Record(ast.NodeTransformer):
    def __init__(self, asserting: set[str]) -> None:
        self._asserting = asserting

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        # One that never holds says that its place must not be reached; it ends the code, as in plain Python.
        return node if never_holds(node) else _recorded(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Compare):  # meant as an assertion: it does nothing else
            return _recorded(ast.copy_location(ast.Assert(test=node.value), node))
        name = _called_name(node.value)
        return _recorded(node) if name.startswith("assert") and name not in self._asserting else node

    def visit_With(self, node: ast.With) -> ast.AST:
        name = _called_name(node.items[0].context_expr)
        if name.startswith("assert") or name == "raises":
            return _recorded(node)
        return self.generic_visit(node)

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        # Of two lists that are compared in a loop, one that is empty would make the loop compare nothing.
        if _called_name(node.iter) == "zip" and any(map(is_recorded, ast.walk(node))):
            node.iter.func = of_recorder("zip")  # type: ignore[attr-defined]
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        if _called_name(node.iter) == "zip":
            node.iter.func = of_recorder("zip")  # type: ignore[attr-defined]
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        if not any(map(_catches_assertions, node.handlers)) and any(map(never_holds, [*node.body, *node.orelse])):
            return _recorded(node)
        parts = ["handlers", "orelse", "finalbody"]
        if not any(map(_catches_assertions, node.handlers)):
            parts.append("body")
        for part in parts:
            setattr(node, part, [self.visit(child) for child in getattr(node, part)])
        return node


class _TellStatements(ast.NodeTransformer):
    """After each statement that may run the candidate, and where a condition has been computed."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.test = _in_parts(node.test)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list) and not isinstance(node, ast.ClassDef) and not is_recorded(node):
                setattr(node, name, self._told(statements, at_start=isinstance(node, _COMPUTE_FIRST)))
        return node

    def _told(self, statements: list[ast.stmt], *, at_start: bool) -> list[ast.stmt]:
        told: list[ast.stmt] = [_statement_ended(statements[0])] if at_start and statements else []
        for statement in statements:
            told.append(statement)
            if is_recorded(statement):
                continue  # the recorder knows
            if isinstance(statement, _RUN_NOTHING) or not any(isinstance(node, _MAY_RUN) for node in ast.walk(statement)):
                continue
            told.append(_statement_ended(statement))
        return told


_COMPUTE_FIRST = (ast.If, ast.For, ast.While, ast.With, ast.AsyncFor, ast.AsyncWith, ast.match_case)
_RUN_NOTHING = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom),
    *(ast.Return, ast.Raise, ast.Break, ast.Continue, ast.Pass, ast.Global, ast.Nonlocal),
)
_MAY_RUN = (ast.Call, ast.Attribute, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.Compare, ast.For, ast.comprehension)


def _in_parts(test: ast.expr) -> ast.expr:
    """`assert a and b` as two statements are: what `a` changed is seen by `b`."""
    if isinstance(test, ast.BoolOp):
        ended = "part_held" if isinstance(test.op, ast.And) else "part_failed"
        values: list[ast.expr] = []
        for value in map(_in_parts, test.values):
            values += [ast.copy_location(ast.Call(func=of_recorder(ended), args=[], keywords=[]), value)] if values else []
            values.append(value)
        test.values = values
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test.operand = _in_parts(test.operand)
    return test


def _statement_ended(beside: ast.stmt) -> ast.stmt:
    return ast.copy_location(ast.Expr(ast.Call(func=of_recorder("statement_ended"), args=[], keywords=[])), beside)


def of_recorder(method: str) -> ast.Attribute:
    """A method of the recorder, as test code calls it."""
    return ast.Attribute(value=ast.Name(id=RECORDER, ctx=ast.Load()), attr=method, ctx=ast.Load())


def _recorded(node: ast.stmt) -> ast.stmt:
    recorder = ast.withitem(context_expr=ast.Name(id=RECORDER, ctx=ast.Load()))
    return ast.copy_location(ast.With(items=[recorder], body=[node]), node)


def _called_name(node: ast.AST) -> str:
    """The last name of what is called: `assertEqual` of `self.assertEqual(...)`."""
    called = node.func if isinstance(node, ast.Call) else None
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def never_holds(node: ast.stmt) -> bool:
    """`assert False`, `self.fail()`, `raise AssertionError`: reached only where something was not raised."""
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant) and not node.test.value
    if isinstance(node, ast.Expr):
        return _called_name(node.value) == "fail"
    if isinstance(node, ast.Raise) and node.exc is not None:
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(raised, ast.Name) and raised.id == "AssertionError"
    return False


def _catches_assertions(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _CATCHERS) for kind in kinds)


# --- Test code in the styles of pytest and unittest -----------------------------------------------------------------------


def run_test_functions(recorded: ast.Module) -> int:
    """Adds calls of the test functions and classes that code defines and leaves to pytest or unittest.

    Returns:
        How many of the tests that they are hold no assertion, and count as one.

    Raises:
        ValueError: A test function needs arguments, which a plugin or fixture would give.
    """
    own = [statement for statement in recorded.body if not isinstance(statement, (*_FUNCTIONS, ast.ClassDef))]
    used = {node.id for statement in own for node in ast.walk(statement) if isinstance(node, ast.Name)}
    classes: set[str] = set()
    without_assertion = 0
    for statement in list(recorded.body):
        if isinstance(statement, ast.ClassDef) and statement.name not in used and _is_test_class(statement, classes):
            classes.add(statement.name)
            method, tests = "run_test_class", _tests_of(statement)
            bases = list(map(_last_name, statement.bases))
            in_pytests_style = not any(base.endswith("TestCase") or base in classes for base in bases)
        elif isinstance(statement, _FUNCTIONS) and statement.name not in used and statement.name.startswith("test"):
            method, tests, in_pytests_style = "run_test_function", [statement], True
        else:
            continue
        for test in tests if in_pytests_style else []:
            given = test is not statement  # `self`
            if len(test.args.args) - given > len(test.args.defaults) or test.decorator_list:
                raise ValueError(f"`{test.name}` needs fixtures or parameters of pytest; call it in the test's code")
        without_assertion += sum(not any(map(is_recorded, ast.walk(test))) for test in tests)
        call = ast.Call(func=of_recorder(method), args=[ast.Name(id=statement.name, ctx=ast.Load())], keywords=[])
        recorded.body.append(ast.fix_missing_locations(ast.copy_location(ast.Expr(call), statement)))
    return without_assertion


def _is_test_class(node: ast.ClassDef, known: set[str]) -> bool:
    bases = {_last_name(base) for base in node.bases}
    if bases & known:
        return True
    named = node.name.startswith("Test") or any(name.endswith("TestCase") for name in bases)
    return named and bool(_tests_of(node))


def _tests_of(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [part for part in node.body if isinstance(part, _FUNCTIONS) and part.name.startswith("test")]


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def judges_nothing(recorded: ast.Module, kind: str) -> str | None:
    """Why test code can never fail, or never hold, whatever the program; None if it judges."""
    defined = {statement.name for statement in recorded.body if isinstance(statement, _FUNCTIONS)}
    if kind == "check":
        assigned = {node.id for node in ast.walk(recorded) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        if "check" not in defined | assigned:
            return "it defines no function `check`; make it a test of kind `assert`, or define `check(candidate)`"
        return None
    used = {node.id for node in ast.walk(recorded) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    reached = [s for s in recorded.body if not (isinstance(s, _FUNCTIONS) and s.name not in used)]
    if not any(isinstance(node, ast.Call) or is_recorded(node) for statement in reached for node in ast.walk(statement)):
        return "it asserts nothing and calls nothing, so that every program would pass, or none; write `assert f(1) == 2`"
    return None


def expected_names(trees: list[ast.Module]) -> set[str]:
    """Names that the code reads and does not get from Python itself."""
    read = {
        node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    nodes = [node for tree in trees for node in ast.walk(tree)]
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    changed = {node.target.id for node in nodes if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)}
    own = stored - changed
    return {name for name in read if not hasattr(builtins, name)} - own - {RECORDER}


def trusted_imports(trees: list[ast.Module], names: set[str]) -> dict[str, list[str]]:
    """What test code takes from the standard library or numpy without importing it: name -> `[module]` or `[module, name]`.

    Many published tests leave such imports to the candidate.
    """
    owners = {
        node.value.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    imports = {name: [_TRUSTED_NAMES[name], name] for name in names & _TRUSTED_NAMES.keys()}
    for name in owners & names:
        module = _MODULE_ALIASES.get(name, name)
        if module in sys.stdlib_module_names or module in _MODULE_ALIASES.values():
            imports[name] = [module]
    return imports


def prompt_helpers(problem: Problem) -> ast.Module | None:
    """Imports and helper functions that a prompt made of code holds beside the function to write.

    Published checks use them (HumanEval/32, 38 and 50), and they must be the prompt's, not what the candidate made of them.
    """
    if not isinstance(problem.prompt, str) or not problem.entry_point:
        return None
    for text in (problem.prompt, problem.prompt.rstrip() + "\n    pass\n"):
        try:
            statements = parse_program(text).body
        except (SyntaxError, ValueError):
            continue
        names = [getattr(statement, "name", None) for statement in statements]
        if problem.entry_point not in names:
            return None
        kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        body: list[ast.stmt] = [
            statement
            for statement, name in zip(statements, names, strict=True)
            if isinstance(statement, kept) and name != problem.entry_point
        ]
        return ast.Module(body=body, type_ignores=[]) if body else None
    return None
