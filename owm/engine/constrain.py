"""Constraints on an answer: a JSON Schema, a regex, a choice of labels or a grammar, kept to token by token.

The work is llguidance's, and this its only importer. What can be wrong with a constraint is found when it is made,
before any model is loaded; what only a model's tokens can show, when a matcher is made for them.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark

from owm.engine import gbnf
from owm.engine.narrowing import Narrowed, narrow
from owm.errors import EngineError, OwmError, Unsupported, UsageError
from owm.native.llama import Model
from owm.native.vocabulary import read_tokens

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

Kind = Literal["schema", "regex", "choice", "grammar"]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Between the parts of JSON: nothing, a space, or a new line with its indentation. Models left free here go on for ever.
_SPACE = r"\x20|\n(?:\x20{0,32}|\t{0,8})"
# Tokens that are plain text all through are looked at once and not again for every mask: in strings that is nearly all.
_SLICES = [r'[^"\\\x00-\x1F\x7F]{1,10}']
_LIMITS = LLParserLimits(verbose_errors=False)
_UNSATISFIABLE = "Unsatisfiable"
_GRAMMARS = "a grammar is Lark, with a rule `start:`, or GBNF, with a rule `root ::=`"


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must be.

    Attributes:
        source: the same in a form that llguidance reads.
        labels: those of a choice.
    """

    kind: Kind
    source: str
    labels: tuple[str, ...] = ()

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, *, is_one_line: bool = False) -> "Constraint":
        """Make a constraint of a JSON Schema (draft 2020-12, or the one that it names).

        The answer keeps to the schema narrowed, see `owm.engine.narrowing`.

        Args:
            is_one_line: the answer has no white space but a space after `:` and `,`.

        Raises:
            UsageError: it is no valid schema, or nothing satisfies it; the message has the keyword and its place.
            Unsupported: it asks for what cannot be enforced while the answer is made.
        """
        narrowed = narrow(schema)
        grammar = _schema_grammar(
            narrowed.document, has_open_objects=narrowed.has_open_objects, is_one_line=is_one_line
        )
        if problem := _problem(grammar):
            raise _schema_error(problem, narrowed)
        return cls("schema", grammar)

    @classmethod
    def regex(cls, pattern: str) -> "Constraint":
        r"""Make a constraint of a regular expression for the whole answer; `\d` and `\w` are ASCII.

        Raises:
            UsageError: it is not one in the syntax of Rust, which has no look-around and no back-references.
        """
        if not pattern:
            raise UsageError("the regex is empty")
        _check_text(pattern, "regex")
        return cls("regex", _checked(f"start: /{regex_to_lark(pattern, 'dw')}/", "regex"))

    @classmethod
    def choice(cls, labels: Sequence[str]) -> "Constraint":
        """Make a constraint of labels, of which the answer is one.

        Raises:
            UsageError: there are none, or one is empty or there twice.
        """
        if not labels:
            raise UsageError("a choice needs labels")
        _check_text("".join(labels), "choice")
        if not all(labels):
            raise UsageError("a choice cannot have an empty label", hint="a comma in a label is written `\\,`")
        if repeated := [label for label, count in Counter(labels).items() if count > 1]:
            raise UsageError(f"a choice has a label twice: {repeated[0]}")
        # One terminal, so that it does not matter whether a label is the beginning of another.
        terminal = " | ".join(f"/{_literal(label)}/" for label in labels)
        return cls("choice", _checked(f"start: LABEL\nLABEL: {terminal}\n", "choice"), tuple(labels))

    @classmethod
    def grammar(cls, text: str) -> "Constraint":
        """Make a constraint of a grammar, in GBNF (with a rule `root ::=`) or in Lark (with a rule `start:`).

        Raises:
            UsageError: it has an error; the message has the line.
            Unsupported: it uses what llguidance does not have.
        """
        _check_text(text, "grammar")
        if text.lstrip().startswith("{"):
            raise UsageError("the grammar is JSON", hint=f"{_GRAMMARS}; a JSON Schema goes to `--schema`")
        return cls("grammar", _checked(gbnf.to_lark(text) if gbnf.is_gbnf(text) else text, "grammar"))

    def matcher(self, vocabulary: "Vocabulary") -> "Matcher":
        """Return the state of a new answer.

        Raises:
            UsageError: the tokens of this model cannot make such an answer.
        """
        return Matcher(self, vocabulary)


def split_labels(text: str) -> tuple[str, ...]:
    r"""Return the labels in `a,b,c`. Spaces around them do not count; `\,` is a comma and `\\` a backslash."""
    parts = [""]
    for found in re.finditer(r"\\([,\\])|(,)|.", text, re.DOTALL):
        if found[2]:
            parts.append("")
        else:
            parts[-1] += found[1] or found[0]
    return tuple(part.strip() for part in parts)


class Vocabulary:
    """The tokens of a model as llguidance wants them. Making one takes a tenth of a second or more: keep it.

    Attributes:
        n_vocab: how many there are.
        ends: those that end a turn or a text.
        has_all_bytes: there is a token for every byte, so that any text can be spelled.
    """

    def __init__(self, native: Model) -> None:
        """Read the vocabulary of an open model, which has to stay open.

        Raises:
            EngineError: the model is closed.
            Unsupported: its tokens cannot be told apart by their bytes.
        """
        table = read_tokens(native)
        # The leading 0xFF is llguidance's mark of a token that is no text.
        words = [piece or b"\xff" + table.names[token] for token, piece in enumerate(table.pieces)]
        ends = table.ends or (len(words),)
        words += [b"\xff<end>"] * (not table.ends)
        try:
            self.tokenizer: LLTokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
                tokens=words,
                vocab_ptr=table.vocab_address,
                tokenize_fptr=table.tokenize_address,
                eos_token=list(ends),
                slices=_SLICES,
            )
        except (ValueError, RuntimeError) as error:
            raise Unsupported(f"answers of this model cannot be constrained: {_sentence(str(error))}") from error
        self.n_vocab = native.n_vocab
        self.ends = frozenset(ends)
        self.has_all_bytes = len({piece for piece in table.pieces if len(piece) == 1}) == 256
        self._native = native

    def check_open(self) -> None:
        """Refuse to go on without the model, whose vocabulary llguidance calls into.

        Raises:
            EngineError: the model was closed.
        """
        if not self._native.pointer:
            raise EngineError("the model is closed")

    def can_spell(self, text: str) -> bool:
        """Tell whether a text can be made of the tokens."""
        raw = text.encode()
        return self.has_all_bytes or self.tokenizer.decode_bytes(self.tokenizer.tokenize_bytes(raw)) == raw


class Matcher:
    """The state of one answer under a constraint."""

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary) -> None:
        vocabulary.check_open()
        self._kind = constraint.kind
        self._vocabulary = vocabulary
        for label in constraint.labels:
            if not vocabulary.can_spell(label):
                raise UsageError(f"this model has no tokens for the label: {label}")
        self._state = LLMatcher(vocabulary.tokenizer, constraint.source, log_level=0, limits=_LIMITS)
        if problem := self._state.get_error():
            raise _error(problem, self._kind)
        try:
            self.mask()
        except EngineError as error:
            raise UsageError(f"the tokens of this model cannot make what the {self._kind} asks for") from error

    @property
    def is_complete(self) -> bool:
        """The answer may end here."""
        return self._state.is_accepting() and not self._state.is_error()

    @property
    def is_finished(self) -> bool:
        """The answer is complete, and nothing but its end may come."""
        return self._state.is_stopped() and not self._state.is_error()

    def allows(self, token: int) -> bool:
        """Tell whether a token may come next: in a few microseconds, where a mask may take many more.

        It allows any spelling of the text that is left, a mask only the tokenizer's own where there is no choice.
        """
        if token in self._vocabulary.ends:
            return self.is_complete
        return self._state.validate_tokens([token]) == 1

    def mask(self) -> Mask:
        """Return which tokens may come next, at least one.

        Raises:
            EngineError: none may, or the constraint is too complex to tell.
        """
        self._vocabulary.check_open()
        bits = np.frombuffer(self._state.compute_bitmask(), np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=self._vocabulary.n_vocab, bitorder="little").view(np.bool_)
        if not self._vocabulary.has_all_bytes:
            # Where the one thing that may come cannot be spelled, llguidance says what could come after it.
            mask[[token for token in np.flatnonzero(mask).tolist() if not self.allows(token)]] = False
            self._check(is_stuck=not mask.any())
        return mask

    def accept(self, token: int) -> None:
        """Go on by a token.

        Raises:
            EngineError: the constraint does not allow it.
        """
        if not self._state.consume_token(token):
            self._check()

    def accept_text(self, text: str) -> None:
        """Go on by a text that is given and not sampled.

        Raises:
            UsageError: no answer that the constraint asks for goes on so.
        """
        self._vocabulary.check_open()
        tokens = self._vocabulary.tokenizer.tokenize_bytes(text.encode("utf-8", "surrogatepass"))
        n_taken = self._state.try_consume_tokens(tokens)
        if n_taken < len(tokens):
            taken = self._vocabulary.tokenizer.decode_bytes(tokens[:n_taken]).decode("utf-8", "replace")
            as_far_as = f"it fits as far as: {taken}" if taken else None
            raise UsageError(f"an answer that the {self._kind} asks for cannot begin so: {text}", hint=as_far_as)

    def forced(self) -> list[int]:
        """Return the tokens that have to come next, as many as are certain; they are not accepted yet."""
        self._vocabulary.check_open()
        return self._state.compute_ff_tokens()

    def _check(self, *, is_stuck: bool = False) -> None:
        if is_stuck or self._state.is_error():
            reason = _sentence(self._state.get_error())
            if is_stuck or reason.startswith("NoExtension"):
                reason = "this model has no token for it"
            raise EngineError(f"the answer cannot go on as the {self._kind} asks: {reason}")


def _literal(text: str) -> str:
    """Return a regex for a text."""
    return "".join(f"\\u{{{ord(char):x}}}" for char in text)


def _check_text(text: str, kind: Kind) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that were no UTF-8
        raise UsageError(f"the {kind} is not text in UTF-8") from error


def _checked(grammar: str, kind: Kind) -> str:
    if problem := _problem(grammar):
        raise _error(problem, kind)
    return grammar


def _problem(grammar: str) -> str:
    """Return what is wrong with a grammar whatever the model, an empty text if nothing is."""
    matcher = LLMatcher(_bytes_tokenizer(), grammar, log_level=0, limits=_LIMITS)
    problem = matcher.get_error()
    if "unknown special token" in problem:  # the model may have it
        return LLMatcher.validate_grammar(grammar, limits=_LIMITS)
    matcher.compute_bitmask()
    problem = matcher.get_error()
    return _UNSATISFIABLE if problem.startswith("NoExtension") else problem


class _Bytes:
    """A tokenizer with a token for each byte."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@functools.cache
def _bytes_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])


def _schema_grammar(document: Any, *, has_open_objects: bool, is_one_line: bool = False) -> str:
    # Unicode escapes are another way to write any name: in an object that takes unknown ones, a known one could come
    # again, unchecked.
    escapes = 'nrbtf\\"' if has_open_objects else 'nrbtf\\"u'
    options: JsonCompileOptions = {
        "whitespace_pattern": _SPACE,
        "json_allowed_escapes": escapes,
        "json_allow_general_unicode_escapes": not has_open_objects,
    }
    if is_one_line:
        del options["whitespace_pattern"]
        options |= {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    schema = json.dumps(document if isinstance(document, dict) else {} if document else {"enum": []})
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides=options)
    except ValueError as error:
        reason = "it is nested too deeply" if "recursion" in str(error) else _sentence(str(error))
        raise Unsupported(f"the schema cannot be enforced: {reason}") from error


def _schema_error(problem: str, narrowed: Narrowed) -> OwmError:
    """Say what is wrong with a schema, and where: in the innermost part that has it on its own."""
    place = ""
    for where, part in narrowed.parts:
        own = "" if "$ref" in json.dumps(part) else _problem(_schema_grammar(part, has_open_objects=True))
        if own:
            problem, place = own, f" at {where}"
            break
    reason = _sentence(problem)
    if problem.startswith(_UNSATISFIABLE):
        detail = reason.partition(": ")[2]
        return UsageError(f"nothing can satisfy the schema{place}" + (f": {detail}" if detail else ""))
    if "regex" in problem and "disjoint" not in problem:
        return UsageError(f"the schema has a regular expression{place} that cannot be used: {reason}")
    for sign, (message, hint) in _UNSUPPORTED.items():
        if sign in problem:
            return Unsupported(message.format(place=place, reason=reason), hint=hint)
    return Unsupported(f"the schema cannot be enforced{place}: {reason}")


# A part of llguidance's message -> our message and hint
_UNSUPPORTED = {
    "oneOf constraints": (
        "the schema has a `oneOf`{place} with options that may overlap",
        "write `anyOf`, or give each option a required property with a `const` of its own",
    ),
    "Unknown format": ("the schema has a `format`{place} that cannot be enforced: {reason}", "leave it out"),
    "not disjoint": ("the schema has `patternProperties`{place} that may overlap: {reason}", None),
    "min/maxProperties": (
        "the schema has `minProperties` or `maxProperties`{place} beside optional properties",
        "name more of the properties in `required`",
    ),
    "not present in a registry": ("the schema refers to another document{place}: {reason}", "put it into `$defs`"),
}


def _error(problem: str, kind: Kind) -> OwmError:
    found = re.match(r"(?:at )?(\d+)\(\d+\): ", problem)
    reason = _sentence(problem[found.end() :] if found else problem)
    if problem.startswith(_UNSATISFIABLE):
        return UsageError(f"nothing can satisfy the {kind}")
    if kind == "grammar":
        line = f"has an error in line {found[1]}" if found else "cannot be used"
        return UsageError(f"the grammar {line}: {reason}", hint=_GRAMMARS)
    return UsageError(f"the {kind} cannot be used: {reason}")


# What llguidance says around the matter itself.
_FRAME = re.compile(
    r"^Parser Error: |^Unknown format: |^invalid regex \".*\" \(in regex\): |; following special tokens.*"
    r"|^Resource '|' is not present in a registry.*"
)


def _sentence(problem: str) -> str:
    """Return the first sentence of llguidance's message, of a regex's error its last one."""
    found = re.search(r"^error: (.*)$", problem, re.MULTILINE)
    return _FRAME.sub("", found[1] if found else problem.partition("\n")[0])[:300]
