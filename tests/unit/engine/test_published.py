"""The list of published templates that ships."""

import re

import pytest

from owm.engine import published
from owm.store import catalog
from support.tiny_gguf import CHATML


def test_the_list_is_whole() -> None:
    rows = published.load()
    assert len({row.name for row in rows}) == len(rows) >= 20
    for row in rows:
        assert row.source.startswith("https://")
        assert row.sha256
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in row.sha256)
        assert all(re.fullmatch(r"[0-9a-f]{12}", digest) for digest in row.outline)
        assert all(pattern == pattern.lower() for pattern in row.repos)
        assert all(re.fullmatch(r"[\w.-]+/[\w.*\[\]-]+", pattern) for pattern in row.repos)


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen3"),
        ("Qwen/Qwen3-30B-A3B", "Qwen3"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", None),
        ("Qwen/Qwen3-4B-Base", None),
        ("qwen/qwen2.5-7b-instruct", "Qwen2.5 Instruct"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", None),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", None),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2 Instruct"),
        ("HuggingFaceTB/SmolLM2-135M", None),
        ("evil/Qwen3-0.6B", None),
    ],
)
def test_a_template_is_found_by_the_repo_of_its_publisher(repo: str, name: str | None) -> None:
    found = published.of_repo(repo)
    assert (found.name if found else None) == name


def test_some_short_names_of_the_catalog_have_their_template_here() -> None:
    origins = [size.origin for entry in catalog.load().entries.values() for size in entry.sizes.values()]
    assert sum(published.of_repo(origin) is not None for origin in origins) >= 15


def test_a_template_counts_as_published_to_the_byte_only() -> None:
    assert published.is_published(CHATML)
    assert not published.is_published(CHATML + " ")
    assert not published.is_published("")
