"""A small language to pick records with: `p_up > 0.6 and symbol == "BTC-USD"`. Pure.

It is written as Python writes expressions, and read by Python's own parser; what is allowed is this and nothing else:

    numbers, "text", True and False, names of fields, (a, b) and [a, b] after `in`
    < <= > >= == !=, also chained; in, not in
    and, or, not
    + - * / // % of numbers, a sign before one, and & | of whole numbers, as for flags

No call, no attribute, no index: a text from anywhere can do nothing but be true or false of a record. A division by
zero gives a value that is not a number, of which every comparison but != is false.
"""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from common.errors import ConfigError

MAX_TEXT = 1000  #: characters, so that no text can be expensive
ALLOWED = "comparisons, and, or, not, in, + - * / // % & |, numbers, texts and names of fields"

_COMPARE = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
            ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.In: lambda a, b: a in b,
            ast.NotIn: lambda a, b: a not in b}
_NUMERIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
            ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}
_WHOLE = {ast.BitAnd: operator.and_, ast.BitOr: operator.or_}
_SIGNS = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_NAMES = {ast.Call: "a call", ast.Attribute: "an attribute", ast.Subscript: "an index", ast.Lambda: "a function",
          ast.IfExp: "if and else", ast.Pow: "a power", ast.NamedExpr: "an assignment", ast.JoinedStr: "an f-string"}

Evaluated = Callable[[Mapping[str, Any]], Any]


class Expression:
    """`text` over records that have the fields `names`. Raises ConfigError where it is none, saying what and where, and
    for a name that is no field, with those that are. Cost of a record: about 0.3 us a comparison."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text, self._names = text, names
        if len(text) > MAX_TEXT:
            raise ConfigError("a filter is too long", where=f"{len(text)} characters, at most {MAX_TEXT}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
            self._evaluate = self._compile(tree.body)
        except SyntaxError as error:
            raise ConfigError("a filter cannot be read", where=f"{text!r}, column {error.offset or 0}: {error.msg}",
                              remedy="write it as: p_up > 0.6 and symbol == \"BTC-USD\"") from None
        except (ValueError, MemoryError, RecursionError) as error:
            raise ConfigError("a filter cannot be read", where=f"{text[:60]!r}: {type(error).__name__}") from None

    def __call__(self, record: Mapping[str, Any]) -> bool:
        """Whether it is true of `record`. Raises ConfigError where values cannot be compared or computed with."""
        try:
            return bool(self._evaluate(record))
        except (TypeError, OverflowError) as error:
            raise ConfigError("a filter cannot be applied", where=f"{self.text!r}: {error}",
                              remedy="compare numbers with numbers and texts with texts") from None

    def _compile(self, node: ast.expr) -> Evaluated:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return lambda record: value
            case ast.Name(id=name):
                if name not in self._names:
                    raise self._refused(f"{name} is no field", node, f"fields are: {', '.join(self._names)}")
                return operator.itemgetter(name)
            case ast.BoolOp(op=op, values=values):
                parts = [self._compile(value) for value in values]
                test = all if isinstance(op, ast.And) else any
                return lambda record: test(part(record) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._compile(operand)
                return lambda record: not inner(record)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
                return _signed(_SIGNS[type(op)], self._compile(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _NUMERIC:
                return _computed(_NUMERIC[type(op)], self._compile(left), self._compile(right), (int, float))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _WHOLE:
                return _computed(_WHOLE[type(op)], self._compile(left), self._compile(right), (int,))
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
                operands = [self._compile(left)]
                operands += [self._listed(other) if isinstance(op, (ast.In, ast.NotIn)) else self._compile(other)
                             for op, other in zip(ops, others)]
                return _compared([_COMPARE[type(op)] for op in ops], operands)
        kind = type(node.op) if isinstance(node, (ast.BinOp, ast.UnaryOp)) else type(node)
        raise self._refused(f"{_NAMES.get(kind, kind.__name__.lower())} cannot be in a filter", node,
                            f"allowed are {ALLOWED}")

    def _listed(self, node: ast.expr) -> Evaluated:
        """What stands after `in`: a list of values, or a text."""
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            parts = [self._compile(part) for part in node.elts]
            return lambda record: [part(record) for part in parts]
        return self._compile(node)

    def _refused(self, what: str, node: ast.expr, remedy: str) -> ConfigError:
        return ConfigError(what, where=f"{self.text!r}, column {node.col_offset + 1}", remedy=remedy)


def _signed(sign: Callable, inner: Evaluated) -> Evaluated:
    def evaluate(record: Mapping[str, Any]) -> Any:
        return sign(_number(inner(record), (int, float)))

    return evaluate


def _computed(compute: Callable, left: Evaluated, right: Evaluated, kinds: tuple[type, ...]) -> Evaluated:
    def evaluate(record: Mapping[str, Any]) -> Any:
        a, b = _number(left(record), kinds), _number(right(record), kinds)
        try:
            return compute(a, b)
        except ZeroDivisionError:
            return math.nan

    return evaluate


def _number(value: Any, kinds: tuple[type, ...]) -> Any:
    """Texts are not computed with: a long one times a number would be all of the memory."""
    if not isinstance(value, kinds):
        raise TypeError(f"{value!r} is no {'number' if float in kinds else 'whole number'}")
    return value


def _compared(tests: list[Callable], operands: list[Evaluated]) -> Evaluated:
    if len(tests) == 1:
        test, (left, right) = tests[0], operands
        return lambda record: test(left(record), right(record))

    def evaluate(record: Mapping[str, Any]) -> bool:
        value = operands[0](record)
        for test, operand in zip(tests, operands[1:]):
            other = operand(record)
            if not test(value, other):
                return False
            value = other
        return True

    return evaluate
