"""GBNF grammars: what they take, as llama.cpp reads them, and errors with their lines."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.constrain import Constraint, Vocabulary
from owm.engine.gbnf import is_gbnf, to_lark
from owm.errors import Unsupported, UsageError
from owm.native.llama import Model
from support.constrained import accepts
from support.tiny_gguf import write_tiny_gguf

ARITHMETIC = r"""
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*   # binary
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    model = Model(write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf"), n_gpu_layers=0)
    yield model
    model.close()


@pytest.fixture(scope="module")
def vocabulary(native: Model) -> Vocabulary:
    return Vocabulary(native)


@pytest.mark.parametrize(
    ("grammar", "taken", "refused"),
    [
        ('root ::= "a" | "ab"', ["a", "ab"], ["", "b", "abb"]),
        ('root ::= word "x"\nword ::= [a-z]+', ["abx", "abxx", "xx"], ["x", "ab", "abxy"]),
        ('root ::= word "x" root | ""\nword ::= [a-z]+', ["", "abx", "abxabxx"], ["x", "ab"]),
        ('root ::= ("a" | "ab") "bc" root?', ["abc", "abbc", "abcabbc"], ["ac", "abb"]),
        ('root ::= item+\nitem ::= "- " [^\\n]+ "\\n"', ["- ä\n", "- a\n- b\n"], ["- a", "- \n"]),
        ("root ::= . [^a] [\\u00e0-\\U000000ff]", ["\nbé", "a😀ü"], ["aaé", "abe"]),
        (r'root ::= "\x41\u00e9\"\\\[\]\-\t\r\n"', ['Aé"\\[]-\t\r\n'], ["A"]),
        (r"root ::= [-a] [a-] [\]\[\\^]", ["-a]", "a-[", "--\\", "aa^"], ["b-]"]),
        ('root ::= "ab"{2} [0-9]{1,} "!"{0,2} "?"{ 1 , 2 }', ["abab1?", "abab12!!??"], ["ab1?", "abab1!!!?", "abab?"]),
        ('root ::= ( # first\n "a" | # second\n "b"\n)* "c"', ["c", "abbac"], ["ab"]),
        ('start ::= "x" | start "y"\nroot ::= start-2 | start\nstart-2 ::= "2"', ["2", "xyy"], ["y"]),
        ('root ::=\n "x" |\n "y"\r\n', ["x", "y"], ["xy"]),
        ("root ::= a\na ::= b\nb ::= c\nc ::= [x]", ["x"], ["a"]),
        (ARITHMETIC, ["1 +2 = 3\n", "(a_1-b)*7= x\n1=1\n"], ["1 +2 = 3", "1+ 2= 3\n"]),
        (JSON, ["{}", '{"a": [1, -2.5, {"b": "x\\u00e9\\n"}], "c": null}\n'], ["[]", '{"a": 01x}', '{"a" 1}']),
    ],
)
def test_a_grammar_takes_what_llama_cpp_says(
    grammar: str, taken: list[str], refused: list[str], native: Model, vocabulary: Vocabulary
) -> None:
    assert is_gbnf(grammar)
    constraint = Constraint.grammar(grammar)
    assert [text for text in taken if not accepts(constraint, native, vocabulary, text)] == []
    assert [text for text in refused if accepts(constraint, native, vocabulary, text)] == []


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ('root ::= "a"\n\nfoo ::= bar', "line 3: no rule has the name `bar`"),
        ('root ::= x\nx = "a"', "line 2: `::=` is expected"),
        ('root ::= "a', 'line 1: a `"` is not closed'),
        ('root ::= "b"\nx ::= [a\n\n', r"line 2: a `\[` is not closed"),
        ("root ::= (\n(\n[a]\n)\n", r"line 1: a `\(` is not closed"),
        ('root ::= "a" )', r"line 1: `\)` is not expected"),
        ('root ::= "a" | * ', r"line 1: `\*` has nothing before it"),
        ('root ::= "a"{2,1}', r"line 1: `\{2,1\}` is at least 2 and at most 1"),
        ('root ::= "a"{x}', r"line 1: `\{` is no number of repetitions"),
        ('root ::= "a"{999999}', "line 1: more than 100000 repetitions"),
        (r'root ::= "\q"', r"line 1: `\\q` is no escape"),
        (r'root ::= "\u12"', r'line 1: `\\u12"` is no escape'),
        (r'root ::= "\ud800"', r"line 1: `\\ud800` is no character"),
        ("root ::= [b-a]", r"line 1: a range in `\[…\]` ends before it begins"),
        ("root ::= []", r"line 1: a `\[…\]` has no characters"),
        ('root ::= "a" $', r"line 1: `\$` is not expected"),
        ('foo ::= "a"', "no rule `root`"),
        ("root ::= " + "(" * 5000, "line 1: more than 100 parentheses are open"),
    ],
)
def test_an_error_has_its_line(grammar: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Constraint.grammar(grammar)


def test_single_tokens_are_not_for_owm() -> None:
    with pytest.raises(Unsupported, match="a single token in line 2"):
        Constraint.grammar('root ::= "a"\nx ::= <think>')


def test_a_grammar_that_takes_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing can satisfy the grammar"):
        Constraint.grammar("root ::= root")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
def test_any_text_can_be_a_literal_or_a_class(text: str) -> None:
    """Written as it is where GBNF allows it, as an escape otherwise, it means the same to the regex in Lark."""
    literal = "".join(f"\\U{ord(char):08x}" if char in '"\\\n\r' else char for char in text)
    inner = re.search(r"T0: \((.*)\)\n", to_lark(f'root ::= "{literal}"'))
    assert inner is not None
    assert [chr(int(code, 16)) for code in re.findall(r"/\\u\{([0-9a-f]+)\}/", inner[1])] == list(text)
    escaped = "".join(f"\\U{ord(char):08x}" for char in text)
    assert to_lark(f"root ::= [{escaped}]").count("}-") == len(text)


@given(text=st.text(max_size=40))
def test_no_text_makes_the_reader_fail_otherwise(text: str) -> None:
    try:
        to_lark(f"root ::= {text}")
    except (UsageError, Unsupported):
        return


def test_grammars_of_both_kinds_are_told_apart() -> None:
    assert is_gbnf("\n# a\n  start ::= [a]")
    assert not is_gbnf('start: "a ::= b"')
    assert not is_gbnf("%llguidance {}\nstart: A\nA: /::=/")
