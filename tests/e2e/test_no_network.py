"""Whatever uses a stored model opens no socket for the internet: the kernel watches, and ends whoever does."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from owm import __version__
from owm.hardware import seclusion
from owm.store import pull, refs
from owm.store.local import Store
from support.every_command import TOKEN, Step, leaves, places, prepare, steps
from support.facts import inspect, model_bytes
from support.hub_server import HubServer, Repo
from support.run import run
from support.stepping import run_steps
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

NEEDED = {"run", "chat", "batch", "bench", "quantize", "convert", "embed", "imatrix", "quality", "tune", "list", "show",
          "verify", "fit"}  # fmt: skip
DEAD = "http://127.0.0.1:9"
AMBIENT = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), DEAD),
    "NO_PROXY": None,
    "no_proxy": None,
    "HF_ENDPOINT": DEAD,
    "HF_TOKEN": "hf_" + "t" * 30,
    "OWM_OLLAMA_REGISTRY": DEAD,
    "MODELSCOPE_DOMAIN": DEAD,
    "HF_HUB_OFFLINE": None,
    "OWM_OFFLINE": None,
}


@pytest.fixture(scope="module")
def means() -> tuple[seclusion.Means, ...]:
    if sys.platform != "linux":
        pytest.skip("the kernel of Linux watches here; macOS has `sandbox-exec`, which test_seclusion.py tries")
    found = seclusion.available()
    assert set(found) == {"filter", "namespace"}, f"seccomp and `unshare -n` (as root or in a user namespace): {found}"
    return found


def test_no_command_on_stored_models_opens_a_socket_with_a_proxy_and_another_hub(
    means: tuple[seclusion.Means, ...], tmp_path: Path, store: Store
) -> None:
    """Neither `--offline` nor its variable is set: that there is nothing to ask is enough.

    Without all of these, every command there is is shut in by test_writes.py.
    """
    where = places(tmp_path)
    prepare(where, store)
    wanted = [step for step in steps(where) if not step.is_networked and not step.code and step.args[0] in NEEDED]
    assert {step.args[0] for step in wanted} == NEEDED
    done = run_steps(wanted, where.cwd, means=means, env={"HOME": str(where.home), **AMBIENT})
    assert done.surprises() == []
    assert len(done.of) == len(wanted)


def test_the_watch_is_real(means: tuple[seclusion.Means, ...], tmp_path: Path) -> None:
    pulled = Step(("pull", "me/absent"))
    done = run_steps(
        [Step(("list",)), pulled, Step(("list",))], tmp_path, means=["filter"], env={"HF_HUB_OFFLINE": None}
    )
    assert done.ended_in == pulled
    assert [step.args for step, _ in done.of] == [("list",)]


def test_every_command_has_a_step(tmp_path: Path) -> None:
    """A new command is shown here to open no socket, or to be one that asks a server, and which files it writes."""
    known = {" ".join(step.args[: 1 + is_sub]) for step in steps(places(tmp_path)) for is_sub in (False, True)}
    assert [name for name in leaves() if name not in known] == []


# -- what the servers are told -----------------------------------------------------------------------------------------


def test_the_hub_is_told_the_program_its_version_and_nothing_of_the_machine(hub: HubServer, tmp_path: Path) -> None:
    hub.add(Repo("me/m", {"m-Q8_0.gguf": tiny_gguf(), "generation_config.json": b"{}"}))
    hub.accounts[TOKEN] = "ada"
    env = {"HF_HUB_DISABLE_TELEMETRY": "0", "CLAUDECODE": "1", "AI_AGENT": "some-agent", "HF_HUB_OFFLINE": "0"}
    asking = [Step(("search", "m")), Step(("show", "me/m")), Step(("pull", "me/m")), Step(("update", "me/m")),
              Step(("doctor", "--hub")), Step(("login",), stdin=TOKEN), Step(("login", "--status"))]  # fmt: skip
    assert run_steps(asking, tmp_path, env=env).surprises() == []
    assert len(hub.requests) >= 8
    allowed = {
        "host", "user-agent", "accept", "accept-encoding", "connection", "range", "x-amzn-trace-id", "authorization",
        "x-hf-download-counter", "cookie", "if-range",
    }  # fmt: skip
    traces = []
    for request in hub.requests:
        assert set(request.headers) <= allowed, request
        own = [f"owm/{__version__}"]
        if request.path == "/api/whoami-v2":  # asked once more by the library, as it keeps a token
            own.append(f"unknown/None; hf_hub/{version('huggingface_hub')}; python/{platform.python_version()}")
        assert request.headers["user-agent"] in own, request
        assert "cookie" not in request.headers
        if trace := request.headers.get("x-amzn-trace-id"):
            traces.append(trace)
    assert len(set(traces)) == len(traces)  # made up for each request: no session can be put together of them


def test_telemetry_of_the_hub_library_is_off_whatever_is_set() -> None:
    code = "from owm.store.sources.hub_client import library\nprint(library().constants.HF_HUB_DISABLE_TELEMETRY)"
    assert run(["-c", code], {"HF_HUB_DISABLE_TELEMETRY": "0"}).strip() == "True"


def test_an_address_is_told_no_more(hub: HubServer, store: Store) -> None:
    hub.plain["m-Q8_0.gguf"] = model_bytes(30_000)
    pull.execute(pull.plan(refs.parse(hub.url("m-Q8_0.gguf")), store), store, inspect=inspect)
    for request in hub.asked("/plain/"):
        assert request.headers["user-agent"] == f"owm/{__version__}"
        assert set(request.headers) <= {"host", "user-agent", "accept", "accept-encoding", "connection", "range"}


def test_nothing_is_asked_for_that_was_not_wanted(hub: HubServer, tmp_path: Path) -> None:
    """No check for updates, of owm or of a model, and no look at what is new."""
    hub.add(Repo("me/m", {"m-Q8_0.gguf": tiny_gguf()}))
    env = {"HF_HUB_OFFLINE": "0"}
    assert run_steps([Step(("pull", "me/m"))], tmp_path, env=env).surprises() == []
    n_requests = len(hub.requests)
    assert n_requests
    quiet = [
        ("list",),
        ("show", "me/m:Q8_0"),
        ("verify", "--full"),
        ("path", "me/m"),
        ("pull", "me/m"),
        ("fit", "me/m:Q8_0"),
    ]
    assert run_steps([Step(words) for words in quiet], tmp_path, env=env).surprises() == []
    assert [request.path for request in hub.requests[n_requests:]] == []
