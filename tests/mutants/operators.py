"""The mutation operators: they find the places of a module to change, and the text to put there.

A mutant is a replaced piece of source text. Not changed are annotations, decorators, assertions,
texts for people, calls of the log, and numbers that a module or an enumeration names.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from attrs import evolve, field, frozen


@frozen(kw_only=True)
class Mutant:
    """A module with one fault.

    :ivar module: the path of the module, relative to the root of the repository.
    :ivar function: the dotted name of the function or class; empty at the module's own level.
    :ivar was: the changed lines, in one line, as ``becomes`` is.
    :ivar nth: the number of this mutant among equal ones of the function.
    :ivar lines: the numbers of the lines of the changed statement, first and last.
    :ivar span: the bytes of the source that ``text`` replaces, from and to.
    """

    module: str
    function: str
    was: str
    becomes: str
    nth: int = 1
    lines: tuple[int, int] = field(eq=False)
    span: tuple[int, int] = field(eq=False)
    text: str = field(eq=False)

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        """The part that names the mutant even if lines above it change."""
        return self.module, self.function, self.was, self.becomes, self.nth

    def planted(self, source: bytes) -> bytes:
        """Return the source of the module with the fault."""
        begin, end = self.span
        return source[:begin] + self.text.encode() + source[end:]


_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "+",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LOG = {"log", "log_store_failure"}
# They shape a class of attrs, not its behaviour; the last one is an assertion.
_SHAPES = {"init", "eq", "kw_only", "repr", "order", "hash", "slots", "frozen", "strict"}
_LOOSE = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.NamedExpr)
_REMOVED = (ast.Delete, ast.Raise, ast.Break, ast.Continue, ast.AugAssign)
# A class without one of its attributes fails in every test.
_CONSTRUCTORS = ("__init__", "__attrs_post_init__")
_SQL_DIRECTORIES = ("callme/store/", "callme/hosts/")
_IS_SQL = re.compile(r"\b(SELECT|UPDATE|DELETE FROM|INSERT INTO|WHERE|SET|ORDER BY|AND|LIMIT)\b")
_SQL = [
    (re.compile(pattern), replacement)
    for pattern, replacement in {
        r" <= ": " < ",
        r" < ": " <= ",
        r" >= ": " > ",
        r" > ": " >= ",
        r" != ": " = ",
        r" \+ ": " - ",
        r" - ": " + ",
        r"\bAND\b": "OR",
        r" AND \w+ (=|!=) '\w+'": "",
        r", \w+ = (NULL|''|0|\w+ [+-] \d)": "",
        r" DESC\b": "",
        r"\bIS NOT NULL\b": "IS NULL",
        r"\bIS NULL\b": "IS NOT NULL",
        r"\bNOT EXISTS\b": "EXISTS",
        r"\bmin\(": "max(",
        r"\bmax\(": "min(",
    }.items()
]

Change = tuple[ast.AST, str]
"""A node, and the text to put in its place."""


class Source:
    """The source text of a module, by its nodes."""

    def __init__(self, source: bytes) -> None:
        self.bytes = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return where a node begins and ends, in bytes."""
        begin = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return begin, end

    def text(self, node: ast.AST) -> str:
        """Return the text of a node."""
        begin, end = self.span(node)
        return self.bytes[begin:end].decode()

    def operand(self, node: ast.AST, *loose: type[ast.AST]) -> str:
        """Return the text of a node, in parentheses if it needs them as an operand."""
        text = self.text(node)
        return f"({text})" if isinstance(node, (*_LOOSE, *loose)) else text

    def lines_around(self, begin: int, end: int) -> tuple[int, int]:
        """Return where the first and the last line of a span begin and end."""
        after = self.bytes.find(b"\n", end)
        return self.bytes.rfind(b"\n", 0, begin) + 1, len(self.bytes) if after < 0 else after


def mutants(module: str, source: bytes) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text."""
    finder = _Finder(module, Source(source))
    seen = Counter[tuple[str, str, str, str, int]]()
    found = []
    for mutant in finder.visit(ast.parse(source), "", None):
        if mutant.becomes != mutant.was:
            seen[mutant.identity] += 1
            found.append(evolve(mutant, nth=seen[mutant.identity]))
    return found


class _Finder:
    def __init__(self, module: str, source: Source) -> None:
        self._module = module
        self._source = source
        self._has_sql = module.startswith(_SQL_DIRECTORIES)

    def visit(self, node: ast.AST, scope: str, statement: ast.stmt | None) -> Iterator[Mutant]:
        """Yield the mutants of a node and of all nodes in it."""
        if _is_skipped(node):
            return
        if isinstance(node, ast.stmt):
            statement = node
        if statement is not None:
            for changed, text in self._changes(node, scope):
                yield self._mutant(scope, statement, changed, text)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            scope = f"{scope}.{node.name}".lstrip(".")
        # Before Python 3.12, what is inside an f-string has no place of its own.
        fields = [] if isinstance(node, ast.JoinedStr) else ast.iter_fields(node)
        for name, value in fields:
            if name in {"annotation", "returns", "decorator_list", "bases", "type"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self.visit(child, scope, statement)

    def _mutant(self, scope: str, statement: ast.stmt, changed: ast.AST, text: str) -> Mutant:
        begin, end = self._source.span(changed)
        first, last = self._source.lines_around(begin, end)
        source = self._source.bytes
        becomes = source[first:begin] + text.encode() + source[end:last]
        body = getattr(statement, "body", None)
        last_line = max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno
        return Mutant(
            module=self._module,
            function=scope,
            was=" ".join(source[first:last].decode().split()),
            becomes=" ".join(becomes.decode().split()),
            lines=(statement.lineno, last_line or statement.lineno),
            span=(begin, end),
            text=text,
        )

    def _changes(self, node: ast.AST, scope: str) -> Iterator[Change]:
        if isinstance(node, ast.stmt):
            yield from self._changes_of_statement(node, scope)
        elif isinstance(node, ast.BoolOp | ast.Compare | ast.UnaryOp | ast.BinOp):
            yield from self._changes_of_operation(node, scope)
        elif isinstance(node, ast.IfExp):
            yield from self._negated(node.test)
        elif isinstance(node, ast.comprehension):
            yield from ((test, "True") for test in node.ifs)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in _FUNCTIONS:
                yield node.func, _FUNCTIONS[node.func.id]
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            yield from self._changes_of_constant(node, scope)

    def _changes_of_statement(self, node: ast.stmt, scope: str) -> Iterator[Change]:
        if isinstance(node, ast.If | ast.While):
            yield from self._negated(node.test)
        elif isinstance(node, ast.Return):
            if node.value is None:
                yield node, "pass"
            elif not isinstance(node.value, ast.Constant | ast.Compare | ast.BoolOp):
                yield node.value, "None"
        elif not scope:
            return
        elif isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Call | ast.Await):
                yield node, "pass"
        elif isinstance(node, _REMOVED) or (
            _sets_no_local(node) and not scope.endswith(_CONSTRUCTORS)
        ):
            yield node, "pass"
        if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
            text, target = _ARITHMETIC[type(node.op)], self._source.text(node.target)
            yield node, f"{target} {text}= {self._source.text(node.value)}"

    def _changes_of_operation(
        self, node: ast.BoolOp | ast.Compare | ast.UnaryOp | ast.BinOp, scope: str
    ) -> Iterator[Change]:
        operand = self._source.operand
        if isinstance(node, ast.BoolOp):
            parts = [operand(value) for value in node.values]
            same, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            yield node, f" {other} ".join(parts)
            for n in range(len(parts)):
                yield node, f" {same} ".join(parts[:n] + parts[n + 1 :])
        elif isinstance(node, ast.Compare):
            if len(node.ops) == 1:
                left, right = (operand(one, ast.Compare) for one in (node.left, *node.comparators))
                yield node, f"{left} {_COMPARISONS[type(node.ops[0])]} {right}"
        elif isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.Not):
                yield node, operand(node.operand)
        elif scope and type(node.op) in _ARITHMETIC:
            left, right = (operand(one, ast.BinOp) for one in (node.left, node.right))
            yield node, f"{left} {_ARITHMETIC[type(node.op)]} {right}"

    def _negated(self, test: ast.expr) -> Iterator[Change]:
        """Negate a condition without an operator; the operators have mutants of their own."""
        if not isinstance(test, ast.BoolOp | ast.Compare | ast.UnaryOp | ast.Constant):
            yield test, f"not {self._source.operand(test)}"

    def _changes_of_constant(
        self, node: ast.Constant | ast.JoinedStr, scope: str
    ) -> Iterator[Change]:
        value = node.value if isinstance(node, ast.Constant) else ""
        if isinstance(value, bool):
            yield node, str(not value)
        elif isinstance(value, int | float):
            if scope:
                yield from ((node, str(value + step)) for step in ((1, -1) if value else (1,)))
        elif isinstance(value, str) and self._has_sql:
            text = self._source.text(node)
            for pattern, replacement in _SQL if _IS_SQL.search(text) else []:
                for match in pattern.finditer(text):
                    yield _part(node, text, match), replacement


def _part(node: ast.AST, text: str, match: re.Match[str]) -> ast.AST:
    """Return a node that stands for a part of the text of another."""
    part = ast.Pass()
    for edge, at in (("", match.start()), ("end_", match.end())):
        line = text.count("\n", 0, at)
        column = len(text[text.rfind("\n", 0, at) + 1 : at].encode())
        setattr(part, f"{edge}lineno", node.lineno + line)  # type: ignore[attr-defined]
        offset = 0 if line else node.col_offset  # type: ignore[attr-defined]
        setattr(part, f"{edge}col_offset", column + offset)
    return part


def _sets_no_local(node: ast.stmt) -> bool:
    """Return whether a statement sets attributes or items, and could be left out."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        for target in node.targets:
            targets += target.elts if isinstance(target, ast.Tuple) else [target]
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    return bool(targets) and all(isinstance(one, ast.Attribute | ast.Subscript) for one in targets)


def _is_skipped(node: ast.AST) -> bool:
    """Return whether a node and all in it stay as they are."""
    if isinstance(node, ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr):
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        # A docstring, or a line of the log.
        return isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and _logs(value))
    if isinstance(node, ast.keyword):
        return node.arg in _SHAPES
    if isinstance(node, ast.If):
        return ast.unparse(node.test).startswith(("TYPE_CHECKING", "sys."))
    return isinstance(node, ast.Call) and _logs(node)


def _logs(call: ast.Call) -> bool:
    function = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    return isinstance(function, ast.Name) and function.id in _LOG
