"""Parts from strangers: whatever one says, opening the model ends in a plan of all tensors or in our own error."""

from pathlib import Path

import pytest

from owm.errors import MalformedFile, OwmError
from owm.pipeline.model_file import open_model_file
from owm.pipeline.parts import copy, file_names, plan_parts
from support.packed_gguf import ARRAY, STRING, U16, U32, U64, array, key, pack, tensor, text

ARCHITECTURE = key("general.architecture", STRING, "llama")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three parts of a small model."""
    whole = tmp_path / "m.gguf"
    entries = [tensor(f"t{index}", [40], 24, 64 * index) for index in range(3)]
    whole.write_bytes(pack([ARCHITECTURE, key("a.text", STRING, "text")], entries, bytes(range(192))))
    plan = plan_parts(open_model_file([whole]), max_tensors=1)
    made = [tmp_path / name for name in file_names("m.gguf", 3)]
    copy(plan, made, stage="split")
    return made


@pytest.mark.parametrize("index", range(3))
def test_any_byte_of_a_part_may_be_wrong(paths: list[Path], index: int) -> None:
    good = paths[index].read_bytes()
    said = []
    for position in range(len(good)):
        raw = bytearray(good)
        raw[position] ^= 1 << position % 8
        paths[index].write_bytes(raw)
        try:
            plan = open_model_file(paths)
        except OwmError as error:
            said.append(str(error))
        else:
            assert len(plan.tensors) == 3
    assert len(said) > len(good) // 3
    assert all(text.isprintable() for text in said)


@pytest.mark.parametrize("index", range(3))
def test_a_part_may_end_anywhere(paths: list[Path], index: int) -> None:
    good = paths[index].read_bytes()
    for length in range(len(good) - 32):  # what only aligns may be missing
        paths[index].write_bytes(good[:length])
        with pytest.raises(MalformedFile):
            open_model_file(paths)


@pytest.mark.parametrize(
    "said",
    [
        key("split.no", U64, 1 << 63), key("split.no", STRING, "\x1b]0;t\x07"), array("split.no", U16, [1]),
        key("split.count", U16, 0), key("split.count", STRING, text("3")),
        key("split.count", ARRAY, b"\0\0\0\0" + bytes(8)),
        key("split.tensors.count", U32, 2), key("split.tensors.count", STRING, text("\x1b[2J")),
        key("general.architecture", STRING, "gpt2"), key("a.text", STRING, "other"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_part_may_say_anything(paths: list[Path], said: bytes) -> None:
    numbered = {
        "split.no": key("split.no", U16, 1),
        "split.count": key("split.count", U16, 3),
        "split.tensors.count": key("split.tensors.count", U32, 3),
    }
    others = [entry for name, entry in numbered.items() if name.encode() not in said]
    paths[1].write_bytes(pack([said, *others], [tensor("t1", [40], 24, 0)], bytes(64)))
    with pytest.raises(MalformedFile) as caught:
        open_model_file(paths)
    assert str(caught.value).isprintable()
