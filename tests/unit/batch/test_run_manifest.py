"""The manifest of a batch: what made an output is read back, believed only whole, and compared in sentences."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm import __version__
from owm.batch.manifest import (
    Machine,
    RunManifest,
    RunModel,
    differences,
    fingerprint,
    manifest_path,
    sha256_for,
    this_machine,
)
from owm.errors import Damaged, NotEnoughDisk, OwmError, StoreError
from support.run import run

SMALL = RunModel("smollm2:135m:Q4_1", "/store/small.gguf", "a" * 64, 100, 1_700_000_000_123_456_789)
LARGE = RunModel("qwen3:4b:Q8_0", "/store/large.gguf", "b" * 64, 200, 2)
SETTINGS = {"temp": 0.8, "max_tokens": None, "schema": '{"type": "object"}', "stop": ["a", "b"], "ignore_eos": False}
GOOD = RunManifest(
    created="2025-01-01T00:00:00+00:00",
    input="rows.jsonl",
    models=(SMALL, LARGE),
    library_build="b9000",
    owm_version="0.1",
    settings=SETTINGS,
    seed=7,
    machine=Machine("A CPU", 2, 1 << 33, "Linux 6"),
    fingerprints={SMALL.ref: "0" * 16, LARGE.ref: "1" * 16},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return manifest_path(tmp_path / "out.jsonl")


def changed(**changes: Any) -> str:
    return json.dumps({**asdict(GOOD), **changes})


def model(**changes: Any) -> str:
    return changed(models=[{**asdict(SMALL), **changes}], fingerprints={SMALL.ref: "0" * 16})


# -- on the disk -------------------------------------------------------------------------------------------------------


def test_the_manifest_lies_beside_the_output(tmp_path: Path) -> None:
    assert manifest_path(tmp_path / "out.csv") == tmp_path / "out.csv.manifest.json"


def test_a_manifest_is_read_back_as_saved_and_leaves_nothing_beside(path: Path) -> None:
    assert RunManifest.load(path) is None
    for saved in (GOOD, replace(GOOD, seed=8, input="-", models=(LARGE,), fingerprints={LARGE.ref: "f" * 16})):
        saved.save(path)
        assert RunManifest.load(path) == saved
    assert os.listdir(path.parent) == [path.name]
    assert json.loads(path.read_text("utf-8"))["version"] == 1


def test_a_run_that_begins_names_this_owm_and_this_machine(path: Path) -> None:
    begun = RunManifest.begin("rows.jsonl", [SMALL, LARGE], SETTINGS, seed=3, library_build="b1")
    assert (begun.owm_version, begun.machine, begun.version) == (__version__, this_machine(), 1)
    assert begun.created.endswith("+00:00")
    assert begun.machine.cpu
    assert begun.machine.n_cores >= 1
    assert begun.machine.memory_bytes > 1 << 20
    assert begun.fingerprints[SMALL.ref] == fingerprint(SMALL.sha256, SETTINGS)
    begun.save(path)
    assert RunManifest.load(path) == begun


def test_names_that_are_no_text_are_kept(path: Path) -> None:
    odd = replace(
        GOOD,
        input="rows \udce9 \\\udcff Grüße \u2028.jsonl",
        models=(replace(SMALL, path="/store/\udcff.gguf"), LARGE),
        settings={"system": 'a\n"b"\\u0041 \x00'},
    )
    odd.save(path)
    assert RunManifest.load(path) == odd
    assert "Grüße" in path.read_text("utf-8")


def test_a_newer_manifest_is_refused_by_name(path: Path) -> None:
    for text in (changed(version=2), '{"version": 2, "models": 1}'):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"newer owm \(manifest 2, this one knows 1\)") as caught:
            RunManifest.load(path)
        assert caught.value.hint == "update owm"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        '"version"',
        "{}",
        '{"version": 1}',
        "[" * 100_000,
        '{"version": ' + "9" * 10_000 + "}",
        "\0" * 4096,
        changed()[:-20],
        changed(version=0),
        changed(version="1"),
        changed(version=True),
        changed(version=None),
        changed(extra=1),
        changed(created=None),
        changed(input=1),
        changed(library_build=None),
        changed(owm_version=1),
        changed(seed="7"),
        changed(seed=None),
        changed(seed=1.5),
        changed(settings=None),
        changed(settings=[]),
        changed(machine=None),
        changed(machine={}),
        changed(machine="x"),
        changed(machine={**asdict(GOOD.machine), "n_cores": "2"}),
        changed(machine={**asdict(GOOD.machine), "cpu": None}),
        changed(models=None),
        changed(models=[]),
        changed(models={}),
        changed(models=["x"]),
        changed(models=[asdict(SMALL)]),
        changed(fingerprints=None),
        changed(fingerprints=[]),
        changed(fingerprints={}),
        changed(fingerprints={SMALL.ref: "0" * 16, LARGE.ref: "0" * 15}),
        changed(fingerprints={SMALL.ref: "0" * 16, LARGE.ref: 7}),
        changed(fingerprints={SMALL.ref: "0" * 16, "other": "0" * 16}),
        model(ref=1),
        model(path=None),
        model(sha256="a" * 63),
        model(sha256="G" * 64),
        model(sha256="a" * 64 + "\n"),
        model(sha256=None),
        model(size_bytes="1"),
        model(size_bytes=True),
        model(mtime_ns=1.0),
        model(more=1),
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(text: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(Damaged) as caught:
        RunManifest.load(path)
    assert str(caught.value).startswith(f"{path} is not the manifest of a batch: ")
    assert "\n" not in str(caught.value)
    assert "__init__" not in str(caught.value)
    assert caught.value.hint == "remove it, what is answered stays in the journal; `--restart` begins anew"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(asdict(GOOD))), _json)
def test_any_changed_member_is_refused_or_gives_a_manifest_that_can_be_used(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.manifest.json"
    path.write_text(changed(**{name: value}))
    try:
        read = RunManifest.load(path)
    except OwmError:
        return
    assert read is not None
    assert all(isinstance(each, str) for each in differences(GOOD, read) + differences(read, GOOD))
    read.save(path)
    again = RunManifest.load(path)
    assert again is not None
    assert differences(read, again) == []


@given(st.data())
def test_no_cut_or_flipped_byte_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.manifest.json"
    GOOD.save(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read = RunManifest.load(path)
    except OwmError:
        return
    assert read is not None
    differences(GOOD, read)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "{} is not a file"),
        (os.mkfifo, "{} is not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "{} is not a file"),
        (lambda path: path.symlink_to(path), "cannot read {}: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_is_refused_at_once(make: Callable[[Path], Any], message: str, path: Path) -> None:
    make(path)
    with pytest.raises(StoreError) as caught:
        RunManifest.load(path)
    assert str(caught.value) == message.format(path)
    assert caught.value.hint


def test_a_manifest_of_impossible_size_is_refused_without_being_held(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(Damaged, match="it is too large"):
        RunManifest.load(path)


def test_a_manifest_that_may_not_be_read_or_written_is_one_sentence(path: Path) -> None:
    GOOD.save(path)
    code = """
import sys
from pathlib import Path
from owm.batch.manifest import RunManifest
from owm.errors import OwmError
path = Path(sys.argv[1])
found = RunManifest.load(path)
for mode, act in ((0o000, lambda: RunManifest.load(path)), (0o500, lambda: found.save(path))):
    (path if mode == 0 else path.parent).chmod(mode)
    try: act()
    except OwmError as error: print(type(error).__name__, error)
"""
    try:
        done = run(["-c", code, path], unprivileged=True)
    finally:
        path.parent.chmod(0o755)
        path.chmod(0o644)
    assert done.stderr == ""
    assert done.splitlines() == [
        f"StoreError cannot read {path}: Permission denied",
        f"StoreError cannot write {path}: Permission denied",
    ]


def test_a_full_disk_leaves_the_old_manifest_and_nothing_beside(path: Path) -> None:
    GOOD.save(path)
    code = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from owm.batch.manifest import RunManifest
from owm.errors import OwmError
path = Path(sys.argv[1])
found = RunManifest.load(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try: replace(found, seed=8).save(path)
except OwmError as error: print(type(error).__name__)
"""
    assert run(["-c", code, path]) == f"{NotEnoughDisk.__name__}\n"
    assert RunManifest.load(path) == GOOD
    assert os.listdir(path.parent) == [path.name]


# -- what it is compared with ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, []),
        ({"created": "x", "input": "y", "library_build": "z", "owm_version": "9", "machine": GOOD.machine}, []),
        ({"models": (LARGE, SMALL)}, []),
        ({"models": (replace(SMALL, path="/elsewhere", mtime_ns=1), LARGE)}, []),
        (
            {"models": (replace(SMALL, sha256="c" * 64), LARGE)},
            ["the model was smollm2:135m:Q4_1 (sha256 aaaaaaaaaaaa…), now smollm2:135m:Q4_1 (sha256 cccccccccccc…)"],
        ),
        (
            {"models": (SMALL, replace(LARGE, ref="other", sha256="c" * 64))},
            ["the model was qwen3:4b:Q8_0 (sha256 bbbbbbbbbbbb…), now other (sha256 cccccccccccc…)"],
        ),
        ({"models": (SMALL,)}, ["the model qwen3:4b:Q8_0 (sha256 bbbbbbbbbbbb…) was asked too, now it is not"]),
        (
            {"models": (SMALL, LARGE, replace(LARGE, ref="third"))},
            ["the model third (sha256 bbbbbbbbbbbb…) was not asked, now it is"],
        ),
        ({"seed": 8}, ["the seed was 7, now 8"]),
        ({"settings": {**SETTINGS, "temp": 0}}, ["temp was 0.8, now 0"]),
        ({"settings": {**SETTINGS, "temp": None}}, ["temp was 0.8, now not set"]),
        ({"settings": {**SETTINGS, "max_tokens": 64}}, ["max_tokens was not set, now 64"]),
        ({"settings": {**SETTINGS, "ignore_eos": 0}}, ["ignore_eos was false, now 0"]),
        ({"settings": {**SETTINGS, "stop": ("a", "b"), "new": None}}, []),
        ({"settings": {**SETTINGS, "stop": ["b", "a"]}}, ['stop was ["a", "b"], now ["b", "a"]']),
        (
            {"settings": {}, "seed": 1},
            [
                "temp was 0.8, now not set",
                'schema was "{\\"type\\": \\"object\\"}", now not set',
                'stop was ["a", "b"], now not set',
                "ignore_eos was false, now not set",
                "the seed was 7, now 1",
            ],
        ),
    ],
)
def test_what_differs_is_said_in_sentences(changes: dict[str, Any], sentences: list[str]) -> None:
    assert differences(GOOD, replace(GOOD, **changes)) == sentences


def test_a_long_value_is_shortened_and_said_to_differ_even_where_its_beginning_does_not() -> None:
    old, new, other = (replace(GOOD, settings={"system": text}) for text in ("x" * 99 + "a", "x" * 99 + "b", "y" * 99))
    assert differences(old, new) == ['system is another than before: "' + "x" * 58 + "…"]
    assert differences(old, other) == ['system was "' + "x" * 58 + '…, now "' + "y" * 58 + "…"]


def test_a_manifest_that_was_saved_does_not_differ_from_itself(path: Path) -> None:
    settings = {"temp": 1.0, "top_k": 40, "stop": ("a",), "schema": {"b": 1.0, "a": [True, None]}, "x": 1e300}
    begun = RunManifest.begin("-", [SMALL], settings, seed=0, library_build="b1")
    begun.save(path)
    read = RunManifest.load(path)
    assert read is not None
    assert differences(read, begun) == differences(begun, read) == []
    assert read.fingerprints == {SMALL.ref: fingerprint(SMALL.sha256, read.settings)}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"a": 1, "b": None}, {"a": 1.0}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": ("x",)}, {"a": ["x"]}, True),
        ({"a": {"y": 1, "x": 2.0}}, {"a": {"x": 2, "y": 1}}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": "ü"}, {"a": "u"}, False),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, False),
        ({"a": 0.1}, {"a": 0.2}, False),
        ({"a": ""}, {}, False),
    ],
)
def test_a_fingerprint_tells_settings_apart_by_what_they_set(
    one: dict[str, Any], other: dict[str, Any], is_same: bool
) -> None:
    assert (fingerprint("a" * 64, one) == fingerprint("a" * 64, other)) is is_same
    assert (differences(replace(GOOD, settings=one), replace(GOOD, settings=other)) == []) is is_same
    assert len(fingerprint("a" * 64, one)) == 16
    assert fingerprint("a" * 64, one) != fingerprint("b" * 64, one)


def test_a_fingerprint_is_the_same_in_every_release() -> None:
    assert fingerprint("a" * 64, SETTINGS) == "ea6b180ed0f618b9"


@pytest.mark.parametrize(
    ("path", "size_bytes", "mtime_ns", "digest"),
    [
        (SMALL.path, SMALL.size_bytes, SMALL.mtime_ns, SMALL.sha256),
        (LARGE.path, LARGE.size_bytes, LARGE.mtime_ns, LARGE.sha256),
        (SMALL.path, SMALL.size_bytes + 1, SMALL.mtime_ns, "anew"),
        (SMALL.path, SMALL.size_bytes, SMALL.mtime_ns + 1, "anew"),
        ("/store/other.gguf", SMALL.size_bytes, SMALL.mtime_ns, "anew"),
    ],
)
def test_a_model_file_that_has_not_changed_is_not_hashed_again(
    path: str, size_bytes: int, mtime_ns: int, digest: str
) -> None:
    assert sha256_for(Path(path), size_bytes, mtime_ns, GOOD, lambda path: "anew") == digest
    assert sha256_for(Path(path), size_bytes, mtime_ns, None, lambda path: "anew") == "anew"
