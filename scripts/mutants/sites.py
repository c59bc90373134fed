"""Where a module can be wrong: every mutation of its syntax tree, in a fixed order, each with a name that lasts.

A mutation is found again by the function it is in, the operator and what it changes into what, not by its line: so
results and the reasons of survivors outlive an edit above them.
The invariant: `mutations` leaves out nothing but what `operators` says cannot act at run time.
Must not live here: what takes a node's place (operators), which tests reach it (reaching).
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.mutants.operators import others

ROOT = Path(__file__).parents[2]
MODULES = ("delegator.provisioning.handshake", "delegator.doors.devices.soap", "delegator.doors.calls",
           "delegator.provisioning.judgement",
           "delegator.provisioning.shared_door", "delegator.provisioning.certifying", "delegator.provisioning.alarm",
           "delegator.provisioning.telling", "delegator.store.claims", "delegator.store.indexed",
           "delegator.store.confirming", "delegator.store.ownership", "delegator.policy", "delegator.routing")
"""The heart: what decides who gets which credential."""
_TYPES = ("annotation", "returns", "bases", "type_params")
"""Fields of nodes that only typing reads; bases are left alone as a class without them does not come to be."""
_NEVER = frozenset(("__all__",))
_GENERIC = frozenset(("dict", "frozenset", "list", "set", "tuple", "type"))
Step = tuple[str, int | None]
"""From a node to one of its children: the field, and the place in it where it is a list."""


def path_of(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is: in which function, on which lines what acts there stands, and whether it runs at import."""

    function: str
    first: int
    last: int
    at_import: bool


@dataclass(frozen=True, slots=True)
class Mutation:
    """One fault. `steps` lead to the node from the module; `put` takes its place there."""

    module: str
    place: Place
    line: int
    operator: str
    before: str
    after: str
    number: int
    steps: tuple[Step, ...] = field(repr=False)
    put: ast.AST = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        """The name that lasts."""
        text = "\0".join((self.module, self.place.function, self.operator, self.before, self.after, str(self.number)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def words(self) -> str:
        return f"{path_of(self.module).relative_to(ROOT)}:{self.line} {self.operator}: {self.before} -> {self.after}"

    def tree(self) -> ast.Module:
        """The module with the fault in it."""
        tree = ast.parse(path_of(self.module).read_text(encoding="utf-8"))
        *way, (name, at) = self.steps
        node: ast.AST = tree
        for step, place in way:
            found = getattr(node, step)
            node = found if place is None else found[place]
        if at is None:
            setattr(node, name, self.put)
        else:
            getattr(node, name)[at] = self.put
        return ast.fix_missing_locations(tree)


def mutations(module: str, names: Mapping[str, object]) -> list[Mutation]:
    """All of a module's, as they stand in it. `names` are the module's own at run time."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    seen: Counter[tuple[str, ...]] = Counter()
    made = []
    for node, place, steps in _nodes(tree, Place("", 1, 1, at_import=True), ()):
        for operator, put in others(node, names):
            before, after = _difference(_said(node), _said(put))
            name = (place.function, operator, before, after)
            seen[name] += 1
            made.append(Mutation(module, place, getattr(node, "lineno", place.first), operator, before, after,
                                 seen[name], steps, put))
    return made


def _nodes(node: ast.AST, place: Place, steps: tuple[Step, ...]) -> Iterator[tuple[ast.AST, Place, tuple[Step, ...]]]:
    """Every node that acts at run time, from the top."""
    for name, value in ast.iter_fields(node):
        if name in _TYPES:
            continue
        children = [(one, at) for at, one in enumerate(value)] if isinstance(value, list) else [(value, None)]
        for child, at in children:
            if not isinstance(child, ast.AST) or _is_silent(child):
                continue
            within = _place(node, name, child, place)
            yield child, within, (*steps, (name, at))
            yield from _nodes(child, within, (*steps, (name, at)))


def _place(parent: ast.AST, name: str, child: ast.AST, place: Place) -> Place:
    """Where a child is. The body of a function runs later; its head, its defaults and decorators, at import."""
    if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and name == "body":
        inner = f"{place.function}.{parent.name}".lstrip(".")
        at_import = place.at_import and isinstance(parent, ast.ClassDef)
        place = Place(inner, place.first, place.last, at_import)
    if isinstance(parent, ast.Lambda) and name == "body":
        place = Place(f"{place.function}.<lambda>".lstrip("."), place.first, place.last, at_import=False)
    if isinstance(child, ast.stmt):
        last = child.end_lineno or child.lineno
        body = getattr(child, "body", None)
        if isinstance(body, list) and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            last = max(child.lineno, body[0].lineno - 1)
        first = min([child.lineno, *(one.lineno for one in getattr(child, "decorator_list", ()))])
        return Place(place.function, first, last, place.at_import)
    return place


def _is_silent(node: ast.AST) -> bool:
    """What does nothing at run time: a docstring, an import, a type's alias or variable, a list for `import *`."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id in _NEVER or _is_type(node.value)
    return isinstance(node, ast.expr_context | ast.operator | ast.cmpop | ast.boolop | ast.unaryop)


def _is_type(node: ast.expr) -> bool:
    """`Callable[[str], bool]`, `A | None`, `TypeVar("T")`: typing's alone."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "TypeVar"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _is_type(node.left) or _is_type(node.right)
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and (
        node.value.id[0].isupper() or node.value.id in _GENERIC)


def _said(node: ast.AST) -> str:
    if isinstance(node, ast.ExceptHandler):
        return "except " + ("()" if node.type is None else ast.unparse(node.type))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return " ".join(f"@{ast.unparse(one)}" for one in node.decorator_list) + f" {node.name}"
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}"
    if isinstance(node, ast.For | ast.AsyncFor):
        return f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}"
    return " ".join(ast.unparse(node).split())


WIDTH = 60


def _difference(before: str, after: str) -> tuple[str, str]:
    """Both, cut down to what is near the place where they part, so that a line holds them."""
    if max(len(before), len(after)) <= 2 * WIDTH:
        return before, after
    start = next((at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other),
                 min(len(before), len(after)))
    start = max(0, start - WIDTH // 2)
    return _cut(before, start), _cut(after, start)


def _cut(text: str, start: int) -> str:
    return ("..." if start else "") + text[start:start + 2 * WIDTH] + ("..." if len(text) > start + 2 * WIDTH else "")
