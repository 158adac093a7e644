"""The shape that an answer is to have, as the flags say it; refused before a model is looked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import NotFound, OwmError, UsageError

if TYPE_CHECKING:
    from owm.engine.constrain import Constraint

MAX_GRAMMAR_BYTES = 1 << 20


def read_shape(
    schema: str | None, choice: str | None, regex: str | None, grammar: Path | None, *, is_one_line: bool = False
) -> "tuple[Constraint | None, tuple[str, ...]]":
    """Return the constraint on the answer, and the labels if it is a choice.

    Args:
        is_one_line: JSON is to stand on one line.

    Raises:
        UsageError: there are two, or one is wrong.
        NotFound: the grammar's file is not there.
    """
    flags = {"--schema": schema, "--choice": choice, "--regex": regex, "--grammar": grammar}
    given = [flag for flag, value in flags.items() if value is not None]
    if not given:
        return None, ()
    if len(given) > 1:
        raise UsageError(f"an answer has one shape, not two: {given[0]} and {given[1]}", hint="give one of them")
    from owm.cli.asking import text_of
    from owm.engine.constrain import Constraint, split_labels
    from owm.engine.schema import read_schema

    if schema is not None:
        return Constraint.json_schema(read_schema(text_of(schema, "--schema")), is_one_line=is_one_line), ()
    if choice is not None:
        labels = split_labels(text_of(choice, "--choice"))
        return Constraint.choice(labels), labels
    if regex is not None:
        return Constraint.regex(text_of(regex, "--regex")), ()
    assert grammar is not None
    return Constraint.grammar(_read_grammar(grammar)), ()


def _read_grammar(path: Path) -> str:
    try:
        size = path.stat().st_size
        if path.is_file() and size > MAX_GRAMMAR_BYTES:
            raise UsageError(f"{path} is too long for a grammar: {size} bytes")
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"no such grammar: {path}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text, so it is no grammar") from None
    except OSError as error:
        raise OwmError(f"cannot read {path}: {error.strerror or error}") from error
