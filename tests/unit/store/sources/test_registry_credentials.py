"""What Docker's config file says of a registry."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from owm.store.sources.credentials import Credentials, credentials_for

AUTH = base64.b64encode(b"me:hun:ter2").decode()


def said(folder: Path, monkeypatch: pytest.MonkeyPatch, stated: Any, host: str) -> Credentials:
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    (folder / "config.json").write_text(stated if isinstance(stated, str) else json.dumps(stated))
    return credentials_for(host)


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("https://GHCR.io/v2/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_a_registry_is_found_by_any_form_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, host: str
) -> None:
    found = said(tmp_path, monkeypatch, {"auths": {"other.example": {"auth": "x"}, key: {"auth": AUTH}}}, host)
    assert (found.user, found.password) == ("me", "hun:ter2")
    assert found.basic == f"Basic {AUTH}"
    assert "hun:ter2" not in repr(found)


@pytest.mark.parametrize("host", ["ghcr.io.evil.example", "evil-ghcr.io", "ghcr.io:444", "io"])
def test_a_password_is_for_its_own_registry_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert said(tmp_path, monkeypatch, {"auths": {"ghcr.io": {"auth": AUTH}}}, host).basic is None


@pytest.mark.parametrize(
    "stated",
    ["", "{", "[]", "3", '{"auths": []}', '{"auths": {"h": 3}}', '{"auths": {"h": {"auth": "%%%"}}}',
     '{"auths": {"h": {"auth": "bWU="}}}', '{"auths": {"h": {"auth": 3}}}', '{"auths": {"h": {}}}', "[" * 100_000],
)  # fmt: skip
def test_a_file_that_says_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str) -> None:
    assert said(tmp_path, monkeypatch, stated, "h") == Credentials()


def test_a_program_that_would_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = {"auths": {"h": {}}, "credHelpers": {"ecr.example": "ecr-login"}, "credsStore": "desktop"}
    assert said(tmp_path, monkeypatch, stated, "h").helper == "desktop"
    assert said(tmp_path, monkeypatch, stated, "ecr.example").helper == "ecr-login"
