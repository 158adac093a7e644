"""Where a chat template looks at what was said: found by following the contents of messages through its names."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jinja2 import nodes

# What a value holds: turns (some or one of them, whose keys are not what was said), what was said in one as it is (a
# text or a list of parts), a part of that, a text made of it, or its length.
Kind = Literal["turns", "part", "content", "text", "length"]
_RANK: tuple[Kind | None, ...] = (None, "length", "turns", "part", "content", "text")
_SAID = ("part", "content", "text")
_TEXT_KEYS = ("content", "text", "reasoning_content", "reasoning", "thinking", "value")
_TURN_METHODS = ("items", "values", "get")
_TEXT_METHODS = frozenset(
    "capitalize casefold format join lower lstrip partition removeprefix removesuffix replace rpartition rsplit rstrip"
    " split splitlines strip swapcase title upper".split()
)
_SEARCHES = frozenset(
    "count endswith find index partition removeprefix removesuffix replace rfind rindex rpartition rsplit split"
    " startswith".split()
)
_COMPARING_TESTS = frozenset("eq equalto == ne != in lt lessthan < le <= gt greaterthan > ge >= sameas".split())
_SELECTING = ("select", "reject", "selectattr", "rejectattr")
_PASSING = frozenset("batch default d first last list map random reverse select reject slice sort unique".split())
_SAME = {"==": "eq", "equalto": "eq", "!=": "ne"}
MAX_CONSTANTS = 16
_ROUNDS = 8  # names handed on more often than that are not followed


@dataclass(frozen=True, slots=True)
class Look:
    """One place: how it looks (`in`, `startswith`, …) and for which texts, none where they are not written there."""

    line: int
    how: str
    literals: tuple[str, ...]


class Content:
    """What was said, on its way through one template."""

    def __init__(self, tree: nodes.Template) -> None:
        """Follow it."""
        self._tree = tree
        self._kinds: dict[str, Kind] = {"messages": "turns"}
        self._constants: dict[str, tuple[str, ...]] = {}
        self._macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
        for _ in range(_ROUNDS):
            before = dict(self._kinds)
            self._follow()
            if self._kinds == before:
                break

    def looks(self) -> Iterator[Look]:
        """Yield every place where the template looks at it."""
        for node in self._tree.find_all((nodes.Compare, nodes.Test, nodes.Call, nodes.Filter, nodes.Getitem)):
            match node:
                case nodes.Compare():
                    sides = [node.expr, *(operand.expr for operand in node.ops)]
                    how = node.ops[0].op
                    yield from self._compared(node.lineno, how.removeprefix("not"), sides)
                case nodes.Test(name=name) if name in _COMPARING_TESTS:
                    yield from self._compared(node.lineno, _SAME.get(name, name), [node.node, *node.args])
                case nodes.Call(node=nodes.Getattr(attr=name) as method) if name in _SEARCHES:
                    if self._kind(method.node) in _SAID and node.args:
                        yield Look(node.lineno, name, self._texts(*node.args[:1]))
                case nodes.Call(node=nodes.Getattr(attr="get")) if any(self._kind(a) in _SAID for a in node.args):
                    yield Look(node.lineno, "get", ())
                case nodes.Filter(name="replace") if self._kind(node.node) in _SAID:
                    yield Look(node.lineno, "replace", self._texts(*node.args[:1]))
                case nodes.Filter(name=name) if name in _SELECTING and node.node is not None:
                    yield from self._selected(node)
                case nodes.Getitem() if self._kind(node.arg) in _SAID:
                    yield Look(node.lineno, "get", ())

    def _compared(self, line: int, how: str, sides: list[nodes.Expr]) -> Iterator[Look]:
        kinds = [self._kind(side) for side in sides]
        if any(kind in _SAID for kind in kinds):
            others = [side for side, kind in zip(sides, kinds, strict=True) if kind not in _SAID]
            if all(isinstance(side, nodes.Const) and not isinstance(side.value, str) for side in others):
                return  # none, true, a number
            literals = self._texts(*others)
            if how == "in" and kinds[-1] == "part" and literals and all(map(str.isidentifier, literals)):
                return  # a key of a part
            yield Look(line, how, literals)
        elif "length" in kinds:
            sizes = [str(side.value) for side in sides if isinstance(side, nodes.Const)]
            if sizes not in (["0"], ["1"]):
                yield Look(line, f"length {how}", tuple(sizes))

    def _selected(self, node: nodes.Filter) -> Iterator[Look]:
        kind = self._kind(node.node)
        has_key = node.name.endswith("attr")
        key = self._texts(*node.args[:1]) if has_key else ()
        rest = node.args[1:] if has_key else node.args
        looks = kind in _SAID or (kind == "turns" and bool(key) and key[0].split(".")[-1] in _TEXT_KEYS)
        if looks and len(rest) > 1 and not (has_key and kind in _SAID and key and key[0] not in _TEXT_KEYS):
            yield Look(node.lineno, node.name, self._texts(*rest[1:]))

    def _texts(self, *values: nodes.Node) -> tuple[str, ...]:
        """Return the texts in values, also where a name stands for them."""
        found: list[str] = []
        for value in values:
            if isinstance(value, nodes.Name):
                found += self._constants.get(value.name, ())
            found += [each.value for each in _constants_in(value)]
        return tuple(found)

    # -- following -------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        for node in self._tree.find_all(
            (nodes.Assign, nodes.AssignBlock, nodes.For, nodes.With, nodes.Call, nodes.Macro)
        ):
            match node:
                case nodes.Assign():
                    self._give(node.target, self._kind(node.node))
                    self._keep(node.target, node.node)
                case nodes.AssignBlock():
                    self._give(node.target, self._printed(node.body))
                case nodes.For():
                    kind = self._kind(node.iter)
                    self._give(node.target, "part" if kind == "content" else kind)
                    self._keep(node.target, node.iter)
                case nodes.With():
                    for target, value in zip(node.targets, node.values, strict=True):
                        self._give(target, self._kind(value))
                case nodes.Call(node=nodes.Name(name=name)) if name in self._macros:
                    for target, value in zip(self._macros[name].args, node.args, strict=False):
                        self._give(target, self._kind(value))
                    for given in node.kwargs:
                        self._give(nodes.Name(given.key, "param"), self._kind(given.value))

    def _keep(self, target: nodes.Node, value: nodes.Node) -> None:
        """Remember the texts that a name stands for."""
        if isinstance(target, nodes.Name) and (texts := self._texts(value)):
            known = self._constants.get(target.name, ())
            self._constants[target.name] = tuple(dict.fromkeys((*known, *texts)))[:MAX_CONSTANTS]

    def _give(self, target: nodes.Node, kind: Kind | None) -> None:
        match target:
            case nodes.Name(name=name):
                self._raise(name, kind)
            case nodes.NSRef(name=name, attr=attr):
                self._raise(f"{name}.{attr}", kind)
            case nodes.Tuple(items=items):
                for item in items:
                    self._give(item, kind)

    def _raise(self, name: str, kind: Kind | None) -> None:
        if kind is not None and _RANK.index(kind) > _RANK.index(self._kinds.get(name)):
            self._kinds[name] = kind

    def _printed(self, body: list[nodes.Node]) -> Kind | None:
        outputs = [output for node in body for output in (node, *node.find_all(nodes.Output))]
        return _most(*(self._kind(part) for output in outputs for part in getattr(output, "nodes", ())))

    def _kind(self, node: nodes.Node | None) -> Kind | None:
        """Tell what a value holds of what was said."""
        match node:
            case nodes.Name(name=name):
                return self._kinds.get(name)
            case nodes.Getattr(node=nodes.Name(name=name), attr=attr) if f"{name}.{attr}" in self._kinds:
                return self._kinds[f"{name}.{attr}"]
            case nodes.Getattr(node=owner, attr=key):
                return self._of_key(self._kind(owner), key)
            case nodes.Getitem(node=owner, arg=nodes.Const(value=str() as key)):
                return self._of_key(self._kind(owner), key)
            case nodes.Getitem(node=owner, arg=nodes.Slice()):
                return _text(self._kind(owner))
            case nodes.Getitem(node=owner):
                kind = self._kind(owner)
                return "part" if kind == "content" else kind
            case nodes.Call():
                return self._of_call(node)
            case nodes.Filter():
                return self._of_filter(node)
            case nodes.And(left=left, right=right) | nodes.Or(left=left, right=right):
                return _most(self._kind(left), self._kind(right))
            case nodes.BinExpr(left=left, right=right):
                return _text(_most(self._kind(left), self._kind(right)))
            case nodes.Concat(nodes=parts):
                return "text" if _most(*map(self._kind, parts)) in ("turns", *_SAID) else None
            case nodes.List(items=parts) | nodes.Tuple(items=parts):
                return _most(*map(self._kind, parts))
            case nodes.CondExpr(expr1=first, expr2=second):
                return _most(self._kind(first), self._kind(second))
        return None

    def _of_key(self, kind: Kind | None, key: str) -> Kind | None:
        if kind == "turns":
            return "content" if key in _TEXT_KEYS else "turns" if key in _TURN_METHODS else None
        return "text" if kind in _SAID and (key in _TEXT_KEYS or key in _TEXT_METHODS) else None

    def _of_call(self, node: nodes.Call) -> Kind | None:
        if isinstance(node.node, nodes.Name) and node.node.name in self._macros:
            return _most(*map(self._kind, node.args), *(self._kind(given.value) for given in node.kwargs))
        if isinstance(node.node, nodes.Getattr) and node.node.attr == "get" and node.args:
            owner, key = self._kind(node.node.node), node.args[0]
            return self._of_key(owner, key.value) if isinstance(key, nodes.Const) else owner
        return self._kind(node.node)

    def _of_filter(self, node: nodes.Filter) -> Kind | None:
        kind = _most(self._kind(node.node), *map(self._kind, node.args if node.name in ("d", "default") else ()))
        if node.name in ("length", "count"):
            return "length" if kind in _SAID else None
        for given in node.kwargs:
            if node.name == "map" and given.key == "attribute" and isinstance(given.value, nodes.Const):
                return self._of_key(kind, str(given.value.value))
        if kind == "turns" and not (node.name in _PASSING or node.name in _SELECTING):
            return "text"
        return kind if node.name in ("d", "default") else _text(kind)


def _text(kind: Kind | None) -> Kind | None:
    """Tell what becomes of a value that something is made of."""
    return "text" if kind in _SAID else kind


def _most(*kinds: Kind | None) -> Kind | None:
    return max(kinds, key=_RANK.index, default=None)


def _constants_in(value: nodes.Node) -> Iterator[nodes.Const]:
    own = [value] if isinstance(value, nodes.Const) else []
    for each in (*own, *value.find_all(nodes.Const)):
        if isinstance(each.value, str):
            yield each
