"""Mutations that know what they change: bytes, texts, JSON, and lines that carry their own checksum.

Everything is drawn from the `random.Random` that is given, so that the same seed makes the same cases.
"""

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from owm.formats.sealed_lines import seal

# Around the widths of integers, and numbers that formats think special.
_BITS = (3, 5, 6, 7, 8, 9, 10, 12, 15, 16, 20, 22, 24, 30, 31, 32, 33, 40, 52, 53, 61, 62, 63, 64)
INTEGERS = sorted({0, 1, 2, 3, 4, 99, 100} | {(1 << bits) + off for bits in _BITS for off in (-1, 0, 1)})
FLOATS = (
    0.0, -0.0, 0.5, 1.0, -1.0, 1e-320, 1e-5, 1e10, 3.4e38, 1e39, 1e300, 1.7e308, float("inf"), -float("inf"),
    float("nan"),
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", "\n", "\r\n", "a" * 100, "a" * 5000, "\ud800", "\udfff", "\u202e", "\x1b]0;x\x07", "é",
    "\U0001f600", "..", "../../x", "/etc/passwd", "C:\\x", "CON", "null", "true", "0", "-1", "1e400", "9" * 5000,
    "NaN", "__class__", "%s", "{}", "{0.__class__}", "{{", "}}", "{%", "[", "]", "'", '"', "\\", "\\u0000",
    "2024-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-12:00", "hub", "a/b", "x:Q4_0",
    "sha256:" + "0" * 64, "0" * 64, "f" * 40, "model.gguf", "٣", "²",
)  # fmt: skip
_CHUNK = 64


def integer(dice: random.Random) -> int:
    """Draw a whole number from where bounds are."""
    number = dice.choice(INTEGERS)
    roll = dice.random()
    return -number if roll < 0.15 else number + dice.randrange(-3, 4) if roll < 0.3 else number


def mutate_bytes(dice: random.Random, raw: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change bytes as no format asks for: flips, cuts, repeats, splices, numbers of any width in any place."""
    made = bytearray(raw)
    for _ in range(1 << dice.randrange(3)):
        at = dice.randrange(len(made) + 1)
        end = min(len(made), at + 1 + dice.randrange(_CHUNK))
        kind = dice.randrange(9)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << dice.randrange(8)
        elif kind == 1 and made:
            made[at % len(made)] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        elif kind == 2:
            del made[at:end]
        elif kind == 3:
            made[at:at] = made[at:end] * dice.choice((1, 1, 2, 16))
        elif kind == 4:
            width = dice.choice((1, 2, 4, 8))
            made[at : at + width] = (integer(dice) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif kind == 5:
            del made[at:]
        elif kind == 6:
            made[at:at] = dice.randbytes(dice.randrange(1, 17))
        elif kind == 7 and others:
            other = dice.choice(others)
            begin = dice.randrange(len(other) + 1)
            made[at:end] = other[begin : begin + dice.randrange(1, 4 * _CHUNK)]
        else:
            there = dice.randrange(len(made) + 1)
            made[at:end], made[there : there + end - at] = made[there : there + end - at], made[at:end]
    return bytes(made)


def mutate_text(dice: random.Random, text: str, words: Sequence[str] = TEXTS, others: Sequence[str] = ()) -> str:
    """Change a text by its words and marks."""
    parts = re.findall(r"\s+|\w+|.", text, re.DOTALL)
    for _ in range(1 << dice.randrange(3)):
        at = dice.randrange(len(parts) + 1)
        kind = dice.randrange(8)
        if kind == 0:
            del parts[at : at + dice.randrange(1, 9)]
        elif kind == 1:
            parts[at:at] = parts[at : at + dice.randrange(1, 9)] * dice.choice((1, 2, 30))
        elif kind == 2:
            parts.insert(at, dice.choice(words))
        elif kind == 3:
            parts[at : at + 1] = [dice.choice(words)]
        elif kind == 4:
            parts[at : at + 1] = [str(integer(dice))]
        elif kind == 5 and others:
            other = re.findall(r"\s+|\w+|.", dice.choice(others), re.DOTALL)
            begin = dice.randrange(len(other) + 1)
            parts[at:at] = other[begin : begin + dice.randrange(1, 60)]
        elif kind == 6:
            there = dice.randrange(len(parts) + 1)
            parts[at : at + 3], parts[there : there + 3] = parts[there : there + 3], parts[at : at + 3]
        else:
            del parts[at:]
            if dice.random() < 0.7:
                parts += re.findall(r"\s+|\w+|.", text, re.DOTALL)[at:]
    return "".join(parts)


def odd_value(dice: random.Random, depth: int = 0) -> Any:
    """Draw any JSON value, mostly one that a reader may not be ready for."""
    kind = dice.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return integer(dice)
    if kind == 2:
        return dice.choice(FLOATS)
    if kind == 3:
        return dice.choice((None, True, False))
    if kind < 6:
        return dice.choice(TEXTS)
    if kind == 6:
        return [odd_value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(TEXTS): odd_value(dice, depth + 1) for _ in range(dice.randrange(3))}


def mutate_json(dice: random.Random, value: Any) -> Any:
    """Change a few places of a JSON value; what is given stays as it is."""
    made = json.loads(json.dumps(value))
    for _ in range(1 << dice.randrange(3)):
        places = _places(made)
        if not places:
            return odd_value(dice)
        holder, key = dice.choice(places)
        there = holder[key]
        kind = dice.randrange(10)
        if kind < 4:
            holder[key] = _like(dice, there)
        elif kind == 4:
            holder[key] = odd_value(dice)
        elif kind == 5:
            del holder[key]
        elif kind == 6 and isinstance(holder, list):
            holder[key:key] = [there] * dice.choice((1, 1, 2, 20))
        elif kind == 6:
            holder[dice.choice((*TEXTS, *holder))] = there
        elif kind == 7:
            other, place = dice.choice(places)
            if (place in other) if isinstance(other, dict) else place < len(other):
                holder[key] = json.loads(json.dumps(other[place]))
        elif kind == 8:
            holder[key] = dice.choice(([there], {"x": there}, [], {}, [[there]]))
        elif isinstance(holder, dict):
            holder[f"{key}{dice.choice(('', '_', ' ', 's'))}"] = holder.pop(key)
    return made


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a value, as what holds it and the key."""
    found, left = [], [value]
    while left:
        each = left.pop()
        keys = range(len(each)) if isinstance(each, list) else list(each) if isinstance(each, dict) else ()
        for key in keys:
            found.append((each, key))
            left.append(each[key])
    return found


def _like(dice: random.Random, there: Any) -> Any:
    """Draw a value of the same kind."""
    if isinstance(there, bool):
        return not there
    if isinstance(there, int):
        return dice.choice(
            (there + 1, there - 1, -there, there * 2, integer(dice), float(there % (1 << 60)), str(there))
        )
    if isinstance(there, float):
        return dice.choice(FLOATS)
    if isinstance(there, str):
        return dice.choice(
            (there + "x", there[:-1], there.upper(), there * 2, mutate_text(dice, there), dice.choice(TEXTS))
        )
    return odd_value(dice)


def dump_json(dice: random.Random, value: Any) -> str:
    """Write a JSON value, now and then as no writer would: keys twice, endless numbers, nesting, other spaces."""
    text = json.dumps(value, ensure_ascii=dice.random() < 0.5, separators=dice.choice(((",", ":"), (", ", ": "))))
    if dice.random() > 0.12:
        return text
    kind = dice.randrange(7)
    at = dice.choice([match.start() for match in re.finditer(r"[\[\]{},:]", text)] or [0])
    if kind == 0 and (members := re.findall(r'"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[\d.e+-]+|\[[^\[\]]*\])', text)):
        return text.replace("{", "{" + dice.choice(members) + ",", dice.choice((1, 1, 2)))
    if kind == 1:
        return re.sub(r"(?<=:)\s*\d+", lambda found: "9" * dice.choice((20, 309, 4300, 4301, 6000)), text, count=1)
    if kind == 2:
        depth = dice.choice((10, 200, 990, 2000, 60_000))
        return text[:at] + "[" * depth + "]" * depth + text[at:]
    if kind == 3:
        depth = dice.choice((10, 990, 60_000))
        return text[:at] + '{"a":' * depth + text[at:]
    if kind == 4:
        return dice.choice(("\ufeff", " ", "\n", "\0")) + text + dice.choice(("", " ", "\0", "}", "x"))
    if kind == 5:
        return re.sub(
            r":\s*[\d.]+", dice.choice((":1e400", ":-1e400", ":NaN", ":Infinity", ":1.0", ":01", ":1e5")), text, count=1
        )
    return mutate_text(dice, text)


def encode(text: str) -> bytes:
    """Return a text's bytes, half characters among them."""
    return text.encode("utf-8", "surrogatepass")


def mutate_json_file(dice: random.Random, raw: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change a file that is one JSON value."""
    if dice.random() < 0.1:
        return mutate_bytes(dice, raw, others)
    try:
        return encode(dump_json(dice, mutate_json(dice, json.loads(raw))))
    except (ValueError, RecursionError):  # no JSON, or numbers or nesting that Python does not write
        return mutate_bytes(dice, raw, others)


def mutate_lines(dice: random.Random, raw: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change a file of sealed lines; most lines are sealed anew, so that what they say is believed."""
    if dice.random() < 0.15:
        return mutate_bytes(dice, raw, others)
    lines = raw.split(b"\n")
    for _ in range(1 << dice.randrange(3)):
        at = dice.randrange(len(lines))
        kind = dice.randrange(8)
        if kind == 0:
            del lines[at]
            lines = lines or [b""]
        elif kind == 1:
            lines.insert(dice.randrange(len(lines) + 1), lines[at])
        elif kind == 2:
            lines.insert(at, lines.pop(dice.randrange(len(lines))))
        elif kind == 3 and others:
            lines.insert(at, dice.choice(dice.choice(others).split(b"\n")))
        elif kind == 4:
            lines[at] = mutate_bytes(dice, lines[at])
        else:
            lines[at] = _resealed(dice, lines[at])
    return dice.choice((b"\n",) * 20 + (b"\r\n", b"\0", b"")).join(lines)


def _resealed(dice: random.Random, line: bytes) -> bytes:
    try:
        members = json.loads(line)
        members.pop("crc32", None)
        members = mutate_json(dice, members)
    except (ValueError, AttributeError, RecursionError):
        return mutate_bytes(dice, line)
    if not isinstance(members, dict) or not members:
        members = {"x": members}
    try:
        return seal(members)[:-1]
    except (ValueError, RecursionError):
        return line
