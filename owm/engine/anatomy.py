"""What a chat template says of its own, and what it looks for in a conversation, read off its syntax tree.

Nothing of the template is run. Texts that it puts together from single letters, or by means of filters, are not seen as
what they become.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jinja2
from jinja2 import nodes
from jinja2.ext import loopcontrols

from owm.engine.bounds import HINT, MAX_NODES, MAX_SOURCE_CHARS
from owm.engine.content import Content
from owm.engine.sandbox import Generation
from owm.errors import TemplateError

MIN_LETTERS = 12  # a phrase of one word is an instruction only if it is a long one
_DYNAMIC = "\0"
_MARK = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,30}\]|\x00|[\r\n]+")  # control tokens and the like, and ends of lines
_SENTENCE_END = re.compile(r"(?<=[.!?:;。！？])\s+|(?<=[。！？])")
_WORD = re.compile(r"[^\W_]+")
_TAG = re.compile(r"\s*(?:<[^<>\s]{1,40}>\w{0,20})?(?:<[^<>\s]{1,40}>|\[/?[A-Z_]{2,30}\])\s*")
_SILENT = ("raise_exception", "strftime_now")  # what they are told is no part of the prompt


@dataclass(frozen=True, slots=True)
class Trait:
    """One text that a template adds, or one place where it looks at what was said.

    Attributes:
        quote: the text, or the tag with the condition.
        key: what makes it the same as one of another template: its words, or what is looked for and how.
        is_mark: it only looks for a mark such as `</think>`.
    """

    kind: Literal["text", "condition"]
    line: int
    quote: str
    key: str
    is_mark: bool = False

    @property
    def digest(self) -> str:
        """A hash of its key, short enough for a list of thousands."""
        return hashlib.sha256(f"{self.kind} {self.key}".encode("utf-8", "surrogatepass")).hexdigest()[:12]


def traits(source: str) -> tuple[Trait, ...]:
    """Return what a template says and looks at, each once, in the order of its lines.

    Raises:
        TemplateError: it does not parse, or is too long to be looked through.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateError(f"the model's chat template is {len(source)} characters long", hint=HINT)
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    try:
        tree = environment.parse(source)
        if sum(1 for _ in tree.find_all(nodes.Node)) > MAX_NODES:
            raise TemplateError("the model's chat template is too long", hint=HINT)
        tags = _tags(environment, source)
        found = [*_texts(tree), *_conditions(tree, tags)]
    except TemplateError:
        raise
    except Exception as error:  # a stranger's program; whoever runs it says more exactly what is wrong
        raise TemplateError("the model's chat template cannot be read", hint=HINT) from error
    unique: dict[str, Trait] = {}
    for trait in sorted(found, key=lambda trait: trait.line):
        unique.setdefault(f"{trait.kind} {trait.key}", trait)
    return tuple(unique.values())


def outline(source: str) -> frozenset[str]:
    """Return the hashes of all traits of a template.

    Raises:
        TemplateError: as of `traits`.
    """
    return frozenset(trait.digest for trait in traits(source))


# -- texts ------------------------------------------------------------------------------------------------------------


def _texts(tree: nodes.Template) -> Iterator[Trait]:
    for line, text in _literals(tree):
        for part in _MARK.split(text):
            for phrase in _SENTENCE_END.split(part):
                words = _WORD.findall(phrase.lower())
                n_letters = sum(2 if ord(letter) > 0x2E80 else 1 for letter in "".join(words))
                if len(words) >= 2 or n_letters >= MIN_LETTERS:
                    yield Trait("text", line, phrase.strip(), " ".join(words))


def _literals(node: nodes.Node) -> Iterator[tuple[int, str]]:
    """Yield the texts of a tree that can become a part of the prompt; what is put together from several is one."""
    if isinstance(node, nodes.Output | nodes.Concat | nodes.Add | nodes.List | nodes.Tuple):
        yield node.lineno, _folded(node)
    elif isinstance(node, nodes.Const | nodes.TemplateData):
        yield node.lineno, _folded(node)
        return
    elif isinstance(node, nodes.Compare | nodes.Test) or _is_silent(node):
        return
    for child in node.iter_child_nodes():
        if isinstance(node, nodes.Getitem) and child is node.arg and isinstance(child, nodes.Const):
            continue
        if not (_is_folded(node) and (_is_folded(child) or isinstance(child, nodes.Const | nodes.TemplateData))):
            yield from _literals(child)


def _is_silent(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in _SILENT


def _is_folded(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Output | nodes.Concat | nodes.Add | nodes.List | nodes.Tuple)


def _folded(node: nodes.Node) -> str:
    match node:
        case nodes.TemplateData():
            return node.data
        case nodes.Const(value=str() as text):
            return text
        case nodes.Add():
            return _folded(node.left) + _folded(node.right)
        case nodes.Output() | nodes.Concat():
            return "".join(map(_folded, node.nodes))
        case nodes.List() | nodes.Tuple():  # letters, and whole texts: either may be meant
            parts = list(map(_folded, node.items))
            return "".join(parts) if all(len(part) <= 2 for part in parts) else "\n".join(parts)
    return _DYNAMIC


# -- conditions -------------------------------------------------------------------------------------------------------


def _conditions(tree: nodes.Template, tags: list[tuple[int, int, str]]) -> Iterator[Trait]:
    for look in Content(tree).looks():
        literals = [literal for literal in look.literals if literal.strip()]
        if look.literals and not literals:  # whether it is empty, and where its lines end
            continue
        key = " ".join((look.how, *(" ".join(literal.split()) for literal in literals)))
        is_mark = bool(literals) and all(_TAG.fullmatch(literal) for literal in literals)
        yield Trait("condition", look.line, _tag_at(tags, look.line, literals), key, is_mark)


def _tags(environment: jinja2.Environment, source: str) -> list[tuple[int, int, str]]:
    """Return first line, last line and text of every tag."""
    tags: list[tuple[int, int, str]] = []
    text, begin = "", 0
    for line, kind, value in environment.lex(source):
        if kind in ("variable_begin", "block_begin"):
            text, begin = "", line
        text += value
        if kind in ("variable_end", "block_end"):
            tags.append((begin, line, text.strip()))
    return tags


def _tag_at(tags: list[tuple[int, int, str]], line: int, literals: list[str]) -> str:
    here = [text for begin, end, text in tags if begin <= line <= end]
    near = [text for text in here if all(literal.strip() in text for literal in literals)]
    return (near or here or [""])[0]
