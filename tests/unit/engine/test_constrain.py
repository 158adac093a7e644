"""Constraints over a real tokenizer: what they take and refuse, errors before any model, and the matcher's contract."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from owm.engine.constrain import Constraint, Vocabulary, split_labels
from owm.errors import EngineError, OwmError, Unsupported, UsageError
from owm.native.llama import Model
from support import tiny_gguf
from support.constrained import accepts, wander
from support.run import run

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age"],
}
CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "good": {"type": "boolean"}}, "required": ["kind"]}
TREE = {"type": "object", "properties": {"left": {"$ref": "#"}, "value": {"type": "null"}}, "required": ["value"]}

# Schemas with answers that satisfy them and answers that do not, which jsonschema is asked about too.
PAIRS: list[tuple[Any, list[str], list[str]]] = [
    (True, ["1", '"a"', "[{}]"], []),
    ({"type": "string"}, ['""', '"é😀\\n\\u00e9\\ud83d\\ude00"'], ["1", "null"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"😀é\\n"'], ['"a"', '"abcd"']),
    ({"type": "string", "pattern": "^[a-c]+$"}, ['"abc"'], ['""', '"abd"']),
    ({"type": "string", "pattern": "b"}, ['"abc"'], ['"ac"']),
    ({"type": "integer"}, ["0", "-12", "9007199254740991"], ["1.5", '"1"']),
    ({"type": "integer", "minimum": -3, "maximum": 12}, ["-3", "0", "12"], ["-4", "13"]),
    ({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 5}, ["5", "100"], ["0", "7"]),
    ({"type": "number"}, ["0", "-1.5", "2e10", "0.25E-3"], ['"0"']),
    ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, ["0", "0.5", "0.999"], ["-0.1", "1", "1.01"]),
    ({"type": "number", "multipleOf": 0.25}, ["0.50", "1.75", "3"], ["0.3"]),
    ({"type": ["boolean", "null"]}, ["true", "false", "null"], ["0"]),
    ({"enum": ["a", 1, 2.5, None, True, [1], {"x": "y"}]}, ['"a"', "1", "2.5", "[1]", '{"x": "y"}'], ['"b"', "2"]),
    ({"const": {"a": [1, "x"]}}, ['{"a": [1, "x"]}'], ['{"a": [1]}', "{}"]),
    ({"type": "array"}, ["[]", '[1, "a", [{}]]'], ["{}"]),
    ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1, 2]"], ['["a"]', "[1, null]"]),
    ({"type": "array", "items": {"enum": [1]}, "minItems": 1, "maxItems": 2}, ["[1]", "[1, 1]"], ["[]", "[1, 1, 1]"]),
    ({"prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False}, ["[null, true]", "[]", "7"], ["[1]"]),
    ({"type": "object"}, ["{}", '{"a": {"b": [1]}}'], ["[]"]),
    (PERSON, ['{"name": "Ada", "age": 36}', '{"name": "", "age": 0, "tags": ["x"]}'], ['{"name": "Ada"}', "{}"]),
    (PERSON, ['{\n  "name": "Ada",\n  "age": 36\n}', '{"name":"Ada","age":36}'], ['{"name": 1, "age": 36}']),
    (PERSON | {"additionalProperties": False}, ['{"name": "", "age": 1}'], ['{"name": "", "age": 1, "x": 1}']),
    (
        PERSON | {"additionalProperties": {"type": "null"}},
        ['{"name": "", "age": 1, "x": null}'],
        ['{"name": "", "age": 1, "x": 1}', '{"name": "", "age": 1, "\\u0061ge": null}'],
    ),
    ({"additionalProperties": {"type": "integer"}, "minProperties": 1}, ['{"a": 1}', '{"a": 1, "b": 2}'], ["{}"]),
    ({"patternProperties": {"^n_": {"type": "integer"}}}, ['{"n_a": 1, "x": "y"}'], ['{"n_a": "y"}']),
    (
        {"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False},
        ['{"n_a": 1}', "{}"],
        ['{"x": 1}', '{"\\u006e_a": "y"}'],
    ),
    ({"required": ["b"], "properties": {"a": {"type": "null"}}}, ['{"a": null, "b": 7}', '{"b": 7}'], ['{"a": null}']),
    ({"type": "object", "maxProperties": 1}, ["{}", '{"a": 1}'], ['{"a": 1, "b": 1}']),
    ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}, ["5", '"a"'], ['"ab"', "[]"]),
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["5", '"a"'], ["null"]),
    ({"oneOf": [CAT, DOG]}, ['{"kind": "cat", "lives": 9}', '{"kind": "dog"}'], ['{"kind": "cow"}']),
    (
        {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "$defs": {"cat": CAT, "dog": DOG}},
        ['{"kind": "dog", "good": true}'],
        ['{"kind": "dog", "good": 1}'],
    ),
    ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, ["3", "5"], ["2", "6"]),
    (
        {"allOf": [{"properties": {"a": {"type": "null"}}}, {"properties": {"b": {"type": "null"}}}]},
        ['{"a": null, "b": null}'],
        ['{"a": null, "b": 1}', '{"a": null, "b": null, "\\u0061": 1}'],
    ),
    (TREE, ['{"value": null}', '{"left": {"left": {"value": null}, "value": null}, "value": null}'], ['{"left": {}}']),
    (
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"items": {"$ref": "#/$defs/n"}}, "n": {"const": 4}}},
        ["[4, 4]"],
        ["[5]"],
    ),
    (
        {"items": [{"type": "null"}], "additionalItems": False, "$schema": "http://json-schema.org/draft-07/schema#"},
        ["[null]", "[]"],
        ["[1]", "[null, null]"],
    ),
    ({"properties": {"a/b\n\"": {"type": "null"}}, "required": ["a/b\n\""]}, ['{"a/b\\n\\"": null}'], ["{}"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    model = Model(tiny_gguf.write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf"), n_gpu_layers=0)
    yield model
    model.close()


@pytest.fixture(scope="module")
def vocabulary(native: Model) -> Vocabulary:
    return Vocabulary(native)


@pytest.mark.parametrize(("schema", "valid", "invalid"), PAIRS)
def test_answers_are_what_the_schema_says(
    schema: Any, valid: list[str], invalid: list[str], native: Model, vocabulary: Vocabulary
) -> None:
    judge = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema)
    assert all(judge.is_valid(json.loads(text)) for text in valid)
    assert not any(judge.is_valid(json.loads(text)) for text in invalid)
    constraint = Constraint.json_schema(schema)
    assert [text for text in valid if not accepts(constraint, native, vocabulary, text)] == []
    assert [text for text in invalid if accepts(constraint, native, vocabulary, text)] == []


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_drawn_from_the_masks_validates(seed: int, native: Model, vocabulary: Vocabulary) -> None:
    n_ended = 0
    for schema, _, _ in PAIRS:
        answer = wander(Constraint.json_schema(schema), native, vocabulary, seed)
        if answer is not None:
            n_ended += 1
            jsonschema.validate(json.loads(answer), schema)
    assert n_ended > 0.8 * len(PAIRS)


def test_an_object_takes_no_properties_that_the_schema_does_not_have(native: Model, vocabulary: Vocabulary) -> None:
    answer = '{"name": "Ada", "age": 36, "x": 1}'
    assert not accepts(Constraint.json_schema(PERSON), native, vocabulary, answer)
    assert accepts(Constraint.json_schema(PERSON | {"additionalProperties": True}), native, vocabulary, answer)


def test_json_may_be_spaced_and_indented_but_not_for_ever(native: Model, vocabulary: Vocabulary) -> None:
    constraint = Constraint.json_schema({"type": "object", "properties": {"a": {}}, "required": ["a"]})
    taken = ['{"a":1}', '{ "a" : 1 }', '{\n    "a": 1\n}', '{\n\t"a": [\n\t\t1\n\t]\n}']
    refused = [' {"a":1}', '{"a":1} ', '{"a":  1}', '{\n\n"a": 1}', "{\n" + 33 * " " + '"a": 1}']
    assert [text for text in taken if not accepts(constraint, native, vocabulary, text)] == []
    assert [text for text in refused if accepts(constraint, native, vocabulary, text)] == []


@pytest.mark.parametrize(
    ("schema", "kind", "problem"),
    [
        ({"items": {"pattern": "("}}, UsageError, "regular expression at #/items that cannot be used: unclosed group"),
        ({"$defs": {"x": {"pattern": "(?=a)"}}, "$ref": "#/$defs/x"}, UsageError, r"at #/\$defs/x .* look-around"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, UsageError, r"nothing can satisfy the schema at #: minItems"),
        (
            {"required": ["a"], "properties": {"a": False}, "type": "object"},
            UsageError,
            "nothing can .* at #: required",
        ),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, UsageError, "nothing can satisfy the schema"),
        (False, UsageError, "nothing can satisfy the schema"),
        (
            {"properties": {"a": {"format": "color"}}},
            Unsupported,
            "`format` at #/properties/a that cannot be enforced: color$",
        ),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, Unsupported, "`oneOf` at # with options that may overlap"),
        ({"patternProperties": {"a": {}, "b": {}}}, Unsupported, "`patternProperties` at # that may overlap"),
        (
            {"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "additionalProperties": False},
            Unsupported,
            "`minProperties` or `maxProperties` at # beside optional properties",
        ),
        (
            {"items": {"$ref": "https://example.com/x"}},
            Unsupported,
            "refers to another document: https://example.com/x$",
        ),
        ({"items": {"uniqueItems": True}}, Unsupported, "`uniqueItems` at #/items"),
    ],
)
def test_a_schema_that_cannot_be_enforced_says_what_and_where(schema: Any, kind: type[OwmError], problem: str) -> None:
    with pytest.raises(kind, match=problem):
        Constraint.json_schema(schema)


def test_a_schema_nested_too_deeply_for_llguidance_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(150):
        schema = {"items": schema}
    with pytest.raises(Unsupported, match="nested too deeply"):
        Constraint.json_schema(schema)


@pytest.mark.parametrize(
    ("pattern", "taken", "refused"),
    [
        (r"\d{4}-\d\d", ["2024-06"], ["2024-6", "24-06", "٢٠٢٤-٠٦"]),
        ("^(yes|no)$", ["yes", "no"], ["yes ", "maybe"]),
        ("a/b", ["a/b"], ["a"]),
        ("(?i)ok", ["OK", "ok"], ["o"]),
        ("x*", ["", "xxx"], ["y"]),
        ("é|😀", ["é", "😀"], ["e"]),
    ],
)
def test_a_regex_is_for_the_whole_answer(
    pattern: str, taken: list[str], refused: list[str], native: Model, vocabulary: Vocabulary
) -> None:
    constraint = Constraint.regex(pattern)
    assert [text for text in taken if not accepts(constraint, native, vocabulary, text)] == []
    assert [text for text in refused if accepts(constraint, native, vocabulary, text)] == []


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "the regex cannot be used: unclosed group"),
        ("[z-a]", "invalid character class range"),
        ("(?<=a)b", "look-around"),
        (r"\bword", "lookarounds not supported"),
        (r"(a)\1", "backreferences are not supported"),
        (r"[^\s\S]", "nothing can satisfy the regex"),
        ("", "the regex is empty"),
        ("a\udcff", "not text in UTF-8"),
    ],
)
def test_a_regex_that_is_wrong_says_why(pattern: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Constraint.regex(pattern)


def test_a_label_may_begin_another(native: Model, vocabulary: Vocabulary) -> None:
    constraint = Constraint.choice(["a", "ab", "abc"])
    assert constraint.labels == ("a", "ab", "abc")
    for label, is_last in (("a", False), ("ab", False), ("abc", True)):
        matcher = constraint.matcher(vocabulary)
        matcher.accept_text(label)
        assert matcher.is_complete
        assert matcher.is_finished is is_last
    assert not accepts(constraint, native, vocabulary, "abcd")
    assert not accepts(constraint, native, vocabulary, "")


@example(labels=["é😀", 'x"y\\', "new\nline", "a,b", "\x00\x7f", "/", "  ", "a|b", "\\u{61}"])
@given(labels=st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4, unique=True))
@settings(max_examples=40)
def test_any_texts_can_be_labels(labels: list[str], native: Model, vocabulary: Vocabulary) -> None:
    constraint = Constraint.choice(labels)
    assert [label for label in labels if not accepts(constraint, native, vocabulary, label)] == []


@pytest.mark.parametrize(
    ("labels", "problem"),
    [([], "needs labels"), (["a", ""], "empty label"), (["a", "b", "a"], "label twice: a"), (["\udcff"], "UTF-8")],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Constraint.choice(labels)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a", ("a",)),
        ("a, b ,c", ("a", "b", "c")),
        (r"yes\, please,no", ("yes, please", "no")),
        (r"a\\,b\n", ("a\\", r"b\n")),
        ("a,", ("a", "")),
        ("", ("",)),
    ],
)
def test_labels_are_separated_by_commas(text: str, labels: tuple[str, ...]) -> None:
    assert split_labels(text) == labels


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ("start: foo", 'error in line 1: unknown name: "foo"'),
        ('start: "a"\n\nstart: "b"', 'error in line 3: duplicate rule: "start"'),
        ('start: "a"\nfoo: ???', "error in line 2: Expected value"),
        ("start: /[/", "error in line 1: unclosed character class"),
        ('start: %json {"type": "foo"}', "error in line 1: failed to compile JSON schema"),
        ('foo: "a"', "cannot be used: no start rule found"),
        ("hello", "error in line 1"),
        ("", "cannot be used: Empty grammar"),
        ("start: start", "nothing can satisfy the grammar"),
        ('{"type": "string"}', "the grammar is JSON"),
    ],
)
def test_an_error_in_a_lark_grammar_has_its_line(grammar: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Constraint.grammar(grammar)


def test_a_lark_grammar_can_name_tokens_that_the_model_has(native: Model, vocabulary: Vocabulary) -> None:
    constraint = Constraint.grammar('start: <|im_start|> "a"')
    matcher = constraint.matcher(vocabulary)
    token = native.tokenize("<|im_start|>", add_special=False, parse_special=True)[0]
    assert np.flatnonzero(matcher.mask()).tolist() == [token]
    with pytest.raises(UsageError, match='error in line 1: unknown special token: "<|other|>"$'.replace("|", r"\|")):
        Constraint.grammar('start: <|other|> "a"').matcher(vocabulary)


def test_control_tokens_are_no_text(native: Model, vocabulary: Vocabulary) -> None:
    """A control token spelled out is a text of many tokens; the token itself is none of them."""
    constraint = Constraint.choice(["<|im_start|>"])
    matcher = constraint.matcher(vocabulary)
    token = native.tokenize("<|im_start|>", add_special=False, parse_special=True)[0]
    assert not matcher.allows(token)
    assert not matcher.mask()[token]
    assert accepts(constraint, native, vocabulary, "<|im_start|>")


def test_every_token_that_ends_a_turn_ends_an_answer(native: Model, vocabulary: Vocabulary) -> None:
    ends = {token for token in range(native.n_vocab) if native.is_end(token)}
    assert len(ends) > 1
    assert vocabulary.ends == ends
    matcher = Constraint.regex("a+").matcher(vocabulary)
    assert not any(matcher.allows(end) for end in ends)
    assert not matcher.mask()[list(ends)].any()
    matcher.accept_text("a")
    assert all(matcher.allows(end) for end in ends)
    assert matcher.mask()[list(ends)].all()
    matcher.accept(max(ends))
    assert matcher.is_finished


def test_a_mask_is_what_is_allowed_one_by_one(native: Model, vocabulary: Vocabulary) -> None:
    matcher = Constraint.json_schema(PERSON).matcher(vocabulary)
    n_free = 0
    for token in native.tokenize(
        '{"name": "Ada\\u00e9", "age": 36, "tags": ["x"]}', add_special=False, parse_special=False
    ):
        mask = matcher.mask()
        assert mask.shape == (native.n_vocab,)
        allowed = [matcher.allows(candidate) for candidate in range(native.n_vocab)]
        if not matcher.forced():
            assert mask.tolist() == allowed
            n_free += 1
        assert not (mask & ~np.array(allowed)).any()
        matcher.accept(token)
    assert n_free > 10
    assert matcher.is_finished


def test_what_must_come_is_known(native: Model, vocabulary: Vocabulary) -> None:
    matcher = Constraint.choice(["the answer"]).matcher(vocabulary)
    forced = matcher.forced()
    assert forced == native.tokenize("the answer", add_special=False, parse_special=False)
    assert not matcher.is_complete
    for token in forced:
        matcher.accept(token)
    assert matcher.is_finished
    assert matcher.forced() == []


def test_a_token_that_is_not_allowed_breaks_the_answer(native: Model, vocabulary: Vocabulary) -> None:
    matcher = Constraint.json_schema({"type": "integer"}).matcher(vocabulary)
    with pytest.raises(EngineError, match="the answer cannot go on as the schema asks"):
        matcher.accept(native.tokenize("x", add_special=False, parse_special=False)[0])
    assert not matcher.is_complete
    assert not matcher.is_finished
    with pytest.raises(EngineError, match="the answer cannot go on"):
        matcher.mask()


def test_an_answer_can_be_given_its_beginning(native: Model, vocabulary: Vocabulary) -> None:
    matcher = Constraint.json_schema(PERSON).matcher(vocabulary)
    matcher.accept_text('{"name": "Ad')
    assert not matcher.is_complete
    matcher.accept_text('a", "age": 3}')
    assert matcher.is_finished
    with pytest.raises(UsageError, match=r'that the schema asks for cannot begin so: \{"name": 1') as caught:
        Constraint.json_schema(PERSON).matcher(vocabulary).accept_text('{"name": 1')
    assert caught.value.hint == 'it fits as far as: {"name": '


def test_matchers_of_one_vocabulary_do_not_share_their_state(vocabulary: Vocabulary) -> None:
    constraint = Constraint.choice(["ab", "cd"])
    one, two = constraint.matcher(vocabulary), constraint.matcher(vocabulary)
    one.accept_text("ab")
    assert one.is_finished
    two.accept_text("cd")
    assert two.is_finished


def test_constraints_are_values(vocabulary: Vocabulary) -> None:
    assert Constraint.json_schema(PERSON) == Constraint.json_schema(json.loads(json.dumps(PERSON)))
    assert len({Constraint.regex("a"), Constraint.regex("a"), Constraint.choice(["a"])}) == 2


def test_a_closed_model_is_an_error_and_no_crash(tmp_path: Path) -> None:
    model = Model(tiny_gguf.write_tiny_gguf(tmp_path / "tiny.gguf"), n_gpu_layers=0)
    vocabulary = Vocabulary(model)
    matcher = Constraint.choice(["the one", "the other"]).matcher(vocabulary)
    model.close()
    for call in (matcher.mask, matcher.forced, lambda: matcher.accept_text("the"), lambda: Vocabulary(model)):
        with pytest.raises(EngineError, match="the model is closed"):
            call()


def test_a_constraint_that_the_tokens_cannot_make_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has no token for the bytes of `é` and of `{`."""
    tokens, kinds = tiny_gguf.vocabulary()
    lacking = {"Ã", "{"}
    monkeypatch.setattr(tiny_gguf, "vocabulary", lambda: (["xx" + t if t in lacking else t for t in tokens], kinds))
    model = Model(tiny_gguf.write_tiny_gguf(tmp_path / "tiny.gguf", seed=77), n_gpu_layers=0)
    vocabulary = Vocabulary(model)
    with pytest.raises(UsageError, match="the tokens of this model cannot make what the schema asks for"):
        Constraint.json_schema(PERSON).matcher(vocabulary)
    with pytest.raises(UsageError, match="no tokens for the label: café"):
        Constraint.choice(["tea", "café"]).matcher(vocabulary)
    matcher = Constraint.regex("caf[éè]").matcher(vocabulary)
    for token in model.tokenize("caf", add_special=False, parse_special=False):
        matcher.accept(token)
    with pytest.raises(EngineError, match="the answer cannot go on as the regex asks: this model has no token for it"):
        matcher.mask()
    model.close()


def test_llguidance_is_imported_only_for_constraints() -> None:
    code = "import sys, owm.engine.model, owm.engine.scheduler; print('llguidance' in sys.modules)"
    assert run(["-c", code]).strip() == "False"
