"""The faults that are put in: for each node of a syntax tree, what may stand there instead. One table, by node.

The invariant: an operator sees a node and gives other nodes; it looks at no file, no test and no module by name.
Left out is only what cannot act at run time: docstrings, annotations and the types that typing alone reads.
Must not live here: SQL (sql), which nodes are reached (sites, reaching), running (pool).
"""

from __future__ import annotations

import ast
import copy
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from scripts.mutants import sql

N = TypeVar("N", bound=ast.AST)
Made = Iterator[tuple[str, ast.AST]]
"""The operator's name, and the node that takes the place."""

_COMPARISONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,), ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt)}
_ARITHMETIC: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitXor: ast.BitAnd}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
_METHODS = {"startswith": "endswith", "endswith": "startswith", "lower": "upper", "upper": "lower",
            "partition": "rpartition", "rpartition": "partition", "removeprefix": "removesuffix",
            "append": "count", "add": "discard", "lstrip": "rstrip", "rstrip": "lstrip"}


def _changed(node: N, **fields: object) -> N:
    made = copy.copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _not(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.copy_location(ast.UnaryOp(ast.Not(), test), test)


def _compare(node: ast.Compare) -> Made:
    for at, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            yield "comparison", _changed(node, ops=[*node.ops[:at], other(), *node.ops[at + 1:]])


def _bool_op(node: ast.BoolOp) -> Made:
    yield "and/or", _changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    for at in range(len(node.values)):
        left = node.values[:at] + node.values[at + 1:]
        yield "operand dropped", left[0] if len(left) == 1 else _changed(node, values=left)


def _unary(node: ast.UnaryOp) -> Made:
    if isinstance(node.op, ast.Not | ast.USub):
        yield "not dropped", node.operand


def _bin_op(node: ast.BinOp) -> Made:
    yield "arithmetic", _changed(node, op=_ARITHMETIC[type(node.op)]())


def _aug_assign(node: ast.AugAssign) -> Made:
    yield "arithmetic", _changed(node, op=_ARITHMETIC[type(node.op)]())
    yield from _gone(node)


def _constant(node: ast.Constant) -> Made:
    value = node.value
    if isinstance(value, bool):
        yield "constant", _changed(node, value=not value)
    elif isinstance(value, int | float):
        yield "constant", _changed(node, value=value + 1)
        yield "constant", _changed(node, value=value - 1)
    elif isinstance(value, bytes):
        yield "text", _changed(node, value=value + b"XX")
    elif isinstance(value, str) and sql.IS_SQL.search(value):
        for other in sql.slips(value):
            yield "SQL", _changed(node, value=other)
    elif isinstance(value, str):
        yield "text", _changed(node, value=value + "XX")


def _gone(node: ast.stmt) -> Made:
    yield "statement removed", ast.copy_location(ast.Pass(), node)


def _assign(node: ast.Assign) -> Made:
    """A name that was never bound is found at once; a field or an entry that was not set is not."""
    if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        yield from _gone(node)


def _return(node: ast.Return) -> Made:
    if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield "None returned", _changed(node, value=ast.copy_location(ast.Constant(None), node.value))


def _branching(node: ast.If | ast.While) -> Made:
    yield "condition turned", _changed(node, test=_not(node.test))


def _if_expression(node: ast.IfExp) -> Made:
    yield "condition turned", _changed(node, test=_not(node.test))
    yield "one branch", node.body
    yield "one branch", node.orelse


def _for(node: ast.For | ast.AsyncFor) -> Made:
    yield "loop over nothing", _changed(node, iter=ast.copy_location(ast.Tuple([], ast.Load()), node.iter))


def _comprehension(node: ast.comprehension) -> Made:
    for at, test in enumerate(node.ifs):
        yield "condition turned", _changed(node, ifs=[*node.ifs[:at], _not(test), *node.ifs[at + 1:]])
        yield "condition dropped", _changed(node, ifs=node.ifs[:at] + node.ifs[at + 1:])


def _call(node: ast.Call) -> Made:
    for at in range(len(node.args) - 1):
        one, other = node.args[at:at + 2]
        if not isinstance(one, ast.Starred) and not isinstance(other, ast.Starred):
            yield "arguments swapped", _changed(node, args=[*node.args[:at], other, one, *node.args[at + 2:]])
    for at in range(len(node.keywords)):
        yield "argument dropped", _changed(node, keywords=node.keywords[:at] + node.keywords[at + 1:])


def _name(node: ast.Name) -> Made:
    if isinstance(node.ctx, ast.Load) and node.id in _NAMES:
        yield "other function", _changed(node, id=_NAMES[node.id])


def _handler(node: ast.ExceptHandler) -> Made:
    if node.type is not None:
        yield "exception not caught", _changed(node, type=ast.copy_location(ast.Tuple([], ast.Load()), node.type))


def _several(node: ast.Tuple | ast.List | ast.Set) -> Made:
    if isinstance(getattr(node, "ctx", ast.Load()), ast.Load) and len(node.elts) > 1:
        for at in range(len(node.elts)):
            yield "element dropped", _changed(node, elts=node.elts[:at] + node.elts[at + 1:])


def _dict(node: ast.Dict) -> Made:
    for at in range(len(node.keys)):
        yield "entry dropped", _changed(node, keys=node.keys[:at] + node.keys[at + 1:],
                                        values=node.values[:at] + node.values[at + 1:])


def _defined(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Made:
    for at in range(len(node.decorator_list)):
        yield "decorator removed", _changed(
            node, decorator_list=node.decorator_list[:at] + node.decorator_list[at + 1:])


OPERATORS: Mapping[type[ast.AST], Callable[[Any], Made]] = {
    ast.Compare: _compare, ast.BoolOp: _bool_op, ast.UnaryOp: _unary, ast.BinOp: _bin_op, ast.AugAssign: _aug_assign,
    ast.Assign: _assign,
    ast.Constant: _constant, ast.Expr: _gone, ast.Raise: _gone, ast.Continue: _gone, ast.Break: _gone,
    ast.Delete: _gone, ast.Return: _return, ast.If: _branching, ast.While: _branching, ast.IfExp: _if_expression,
    ast.For: _for, ast.AsyncFor: _for, ast.comprehension: _comprehension, ast.Call: _call, ast.Name: _name,
    ast.ExceptHandler: _handler, ast.Tuple: _several, ast.List: _several, ast.Set: _several, ast.Dict: _dict,
    ast.FunctionDef: _defined, ast.AsyncFunctionDef: _defined, ast.ClassDef: _defined}


def others(node: ast.AST, names: Mapping[str, object]) -> Made:
    """What may stand in a node's place. `names` are the module's own, to know enumerations by."""
    if isinstance(node, ast.Attribute):
        yield from _attribute(node, names)
    elif type(node) in OPERATORS:
        yield from OPERATORS[type(node)](node)


def _attribute(node: ast.Attribute, names: Mapping[str, object]) -> Made:
    """Another member of the enumeration, or a method that does the opposite."""
    if isinstance(node.value, ast.Name) and isinstance(kind := names.get(node.value.id), enum.EnumMeta):
        members = list(kind.__members__)
        if node.attr in members:
            yield "other member", _changed(node, attr=members[(members.index(node.attr) + 1) % len(members)])
    elif isinstance(node.ctx, ast.Load) and node.attr in _METHODS:
        yield "other method", _changed(node, attr=_METHODS[node.attr])
