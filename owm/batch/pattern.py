"""The prompt that a batch's rows have in common: a text with places `{name}` for the fields of a row."""

import difflib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from owm.batch.fields import Refused
from owm.errors import UsageError

_PLACE = re.compile(r"\{\{|\}\}|\{(?!\s*\})([^{}\n]+)\}|[{}]")


class Pattern:
    """A prompt with places; `{{` and `}}` are braces. `text` is as it was given, `names` are those of its places."""

    def __init__(self, text: str) -> None:
        """Find the places.

        Raises:
            UsageError: a brace belongs to none, or there is none, so that what the rows say would be lost.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:  # bytes on the command line
            raise UsageError("the prompt is not UTF-8 text") from error
        self.text = text
        parts, end = [""], 0  # by turns a text and a name
        for match in _PLACE.finditer(text):
            parts[-1] += text[end : match.start()]
            end = match.end()
            if match[1]:
                parts += [match[1].strip(), ""]
            elif len(match[0]) == 2:
                parts[-1] += match[0][0]
            else:
                line = text.count("\n", 0, match.start()) + 1
                raise UsageError(
                    f"a brace in line {line} of the prompt belongs to no placeholder: {match[0]}",
                    hint=f"write `{{name}}` for a placeholder, `{match[0] * 2}` for a brace",
                )
        parts[-1] += text[end:]
        self._texts, self._places = parts[::2], parts[1::2]
        self.names = tuple(dict.fromkeys(self._places))
        if not self.names:
            raise UsageError(
                "the prompt has no placeholder, so every row would ask the same",
                hint="`{name}` is the place for the field or column of that name, `{line}` for a line",
            )

    def check(self, available: Collection[str], what: str) -> None:
        """Refuse places that no row can fill; `what` is what the rows have, in the plural.

        Raises:
            UsageError: there is one; the hint has the nearest name, or all of them.
        """
        if missing := [name for name in self.names if name not in available]:
            near = difflib.get_close_matches(missing[0], available, n=1)
            shown = ", ".join(name for name in available if name)
            raise UsageError(
                f"the prompt names what is not among the {what}: {', '.join(missing)}",
                hint=(f"did you mean `{{{near[0]}}}`? " if near else "") + f"there are: {shown}",
            )

    def fill(self, values: Mapping[str, Any]) -> str:
        """Put a row's values into the places, texts as they are and others as JSON; they are not looked at again.

        Raises:
            Refused: the row has no such value.
        """
        if missing := [name for name in self.names if name not in values]:
            raise Refused("invalid_row", f"the row has no field for the prompt's {', '.join(missing)}")
        filled = [self._texts[0]]
        for name, text in zip(self._places, self._texts[1:], strict=True):
            value = values[name]
            filled += [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), text]
        return "".join(filled)
