"""Tokens, passwords and signatures: whom they are told, and that nothing owm writes or says has them.

Each port and each name of this machine is an origin of its own. A canary stands for each secret.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from owm.errors import OwmError
from owm.hardware import bandwidth, matmul
from owm.library import fit_speeds
from owm.store.download import Digest, Transfer, download, read_range
from owm.store.sources.asking import ask
from support.hub_server import HubServer, Repo
from support.line_server import Line, LineServer
from support.modelscope_server import ModelScopeServer
from support.origins import OriginServer, Reply
from support.proxy_server import ProxyServer
from support.registry_server import Blob, RegistryServer, json_blob, manifest_of
from support.run import ROOT, Output, environment, run_here
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

CANARY = "cAnArY0fAsEcReT7"
TOKEN = f"hf_{CANARY}"
SECRET_HEADERS = {"Authorization": f"Bearer {TOKEN}", "Cookie": f"m_session_id={TOKEN}"}
PACKED = base64.b64encode(f"me:{CANARY}".encode()).decode()
GGUF = tiny_gguf()


@dataclass(slots=True)
class Watch:
    """A home, and commands run in it."""

    home: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    said: list[Output] = field(default_factory=list)

    def run(self, *args: str | os.PathLike[str], stdin: str = "", **env: str | None) -> Output:
        """Run a command in this process, each as the first."""
        with self.monkeypatch.context() as patch:
            for name, value in env.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            return self._took(run_here(self.capsys, *args))

    def start(self, *args: str | os.PathLike[str], stdin: str = "", **env: str | None) -> Output:
        """Run a command as a process of its own, where libraries read the environment when they are imported."""
        done = subprocess.run(
            [sys.executable, "-m", "owm", *args],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment(env),
            timeout=60,
            check=False,
        )
        output = Output(done.stdout)
        output.stderr, output.exit_code = done.stderr, done.returncode
        return self._took(output)

    def _took(self, done: Output) -> Output:
        self.said.append(done)
        return done

    def leaks(self, *, but_in: Sequence[str] = ()) -> list[str]:
        """Return where a canary is told: in what was said, in any file of the home, in any command line."""
        secrets = [text.encode() for text in (CANARY, PACKED)]
        found = [
            f"{what} of command {number}"
            for number, done in enumerate(self.said)
            for what, text in (("stdout", str(done)), ("stderr", done.stderr))
            if any(secret in text.encode() for secret in secrets)
        ]
        for path in self.home.rglob("*"):
            told = path.read_bytes() if path.is_file() else b""
            if path.name not in but_in and any(secret in told + os.fsencode(path) for secret in secrets):
                found.append(str(path))
        return found


@pytest.fixture
def watch(clean_environment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(bandwidth, "measure", lambda *, n_threads: 2.5e10)  # what takes time, and is not meant here
    monkeypatch.setattr(matmul, "measure", lambda type_name, *, n_threads: 1e11)
    monkeypatch.setattr(fit_speeds, "MEASURING_SECONDS", 0.0)
    return Watch(clean_environment, capsys, monkeypatch)


@pytest.fixture
def origins() -> Iterator[Callable[..., OriginServer]]:
    with ExitStack() as stack:
        yield lambda *args, **more: stack.enter_context(OriginServer(*args, **more))


# -- redirects ---------------------------------------------------------------------------------------------------------


def transfer(origin: OriginServer) -> Transfer:
    digest = Digest("sha256", hashlib.sha256(GGUF).hexdigest())
    return Transfer(f"{origin.address}/m.gguf", "m.gguf", len(GGUF), digest, SECRET_HEADERS)


HEIRS = {"another port": "127.0.0.1", "another name": "localhost"}


@pytest.mark.parametrize("heir", HEIRS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_download_tells_nobody_else_its_token_even_when_it_goes_on(
    origins: Callable[..., OriginServer], tmp_path: Path, heir: str, status: int
) -> None:
    home, other = origins(), origins(HEIRS[heir])
    home.redirect("/m.gguf", f"{other.address}/x", status)
    other.give("/x", GGUF, cuts=1)  # it breaks off, and is asked for the rest
    download(transfer(home), tmp_path / "part")
    assert len(other.told) >= 2
    assert all(CANARY in told for told in home.told)
    assert not any(CANARY in told for told in other.told)


def test_connections_beside_the_first_tell_nobody_else_the_token(tmp_path: Path) -> None:
    """A large file comes by several connections, most of which ask where the first was sent to."""
    body = b"GGUF" + bytes(24 << 20)
    with OriginServer() as home, LineServer({"x": body}, bytes_per_second=20e6) as other:
        home.redirect("/m.gguf", other.url("x"))
        download(Transfer(f"{home.address}/m.gguf", "m.gguf", len(body), None, SECRET_HEADERS), tmp_path / "part")
        assert len(other.asked) > 1
        assert not any(CANARY in str(asked.headers) for asked in other.asked)


def test_a_token_stays_with_its_own_origin_on_a_redirect_within_it(
    origins: Callable[..., OriginServer], tmp_path: Path
) -> None:
    home = origins()
    home.redirect("/m.gguf", "/x")
    home.give("/x", GGUF, cuts=1)
    download(transfer(home), tmp_path / "part")
    assert all(f"Bearer {TOKEN}" in told for told in home.told)


def test_a_chain_of_redirects_that_comes_back_brings_no_token_along(tmp_path: Path) -> None:
    """Whoever is in between chooses what of the home is asked for: not with the user's token, by any connection."""
    body = b"GGUF" + bytes(24 << 20)
    with OriginServer() as other, LineServer({"m": body, "chosen": body}, bytes_per_second=20e6) as home:
        away = Line(status=302, headers={"Location": f"{other.address}/x"})
        home.behave = lambda asked: away if asked.path == "/m" else Line()
        other.redirect("/x", home.url("chosen"))
        download(Transfer(home.url("m"), "m.gguf", len(body), None, SECRET_HEADERS), tmp_path / "part")
        assert not any(CANARY in told for told in other.told)
        chosen = [asked for asked in home.asked if asked.path == "/chosen"]
        assert len(chosen) > 1
        assert not any(CANARY in str(asked.headers) for asked in chosen)


@pytest.mark.parametrize("heir", HEIRS)
def test_small_requests_and_parts_of_files_tell_nobody_else_the_token(
    origins: Callable[..., OriginServer], heir: str
) -> None:
    home, other = origins(), origins(HEIRS[heir])
    home.redirect("/m.gguf", f"{other.address}/x")
    other.give("/x", GGUF)
    ask(f"{home.address}/m.gguf", until=time.monotonic() + 20, headers=SECRET_HEADERS)
    read_range(transfer(home), 0, 100)
    assert len(other.told) == 2
    assert not any(CANARY in told for told in other.told)


def test_a_mirror_on_another_host_is_told_no_token(origins: Callable[..., OriginServer], tmp_path: Path) -> None:
    home, mirror = origins(), origins("localhost")
    mirror.give("/m.gguf", GGUF)
    whole = transfer(home)
    found = Transfer(
        whole.url, whole.label, whole.size_bytes, whole.digest, whole.headers, (f"{mirror.address}/m.gguf",)
    )
    download(found, tmp_path / "part")
    assert mirror.told
    assert not any(CANARY in told for told in mirror.told)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for this machine, which requests trusts."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl makes the certificate")
    path = tmp_path / "both.pem"
    subprocess.run(
        [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", path, "-out", tmp_path / "only.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    path.write_text(path.read_text() + (tmp_path / "only.pem").read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


def test_neither_a_token_nor_a_download_goes_from_https_to_plain_http(
    origins: Callable[..., OriginServer], tmp_path: Path, certificate: Path
) -> None:
    home, plain = origins(certificate=certificate), origins()
    home.redirect("/m.gguf", f"{plain.address}/m.gguf")
    with pytest.raises(OwmError) as caught:
        download(transfer(home), tmp_path / "part")
    assert plain.told == []
    assert CANARY not in str(caught.value)
    assert any(CANARY in told for told in home.told)


def test_a_token_goes_to_no_other_port_of_https(
    origins: Callable[..., OriginServer], tmp_path: Path, certificate: Path
) -> None:
    home, other = origins(certificate=certificate), origins("localhost", certificate=certificate)
    home.redirect("/m.gguf", f"{other.address}/x")
    other.give("/x", GGUF)
    download(transfer(home), tmp_path / "part")
    assert other.told
    assert not any(CANARY in told for told in other.told)


# -- the Hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def private(hub: HubServer) -> HubServer:
    """A Hub with a repo that needs the token."""
    hub.add(Repo("acme/tiny-GGUF", {"tiny-Q8_0.gguf": GGUF, "config.json": b"{}"}, private=True, tokens=(TOKEN,)))
    hub.accounts[TOKEN] = "me"
    return hub


def test_the_hubs_token_of_the_environment_is_written_and_said_nowhere(watch: Watch, private: HubServer) -> None:
    env = {"HF_TOKEN": TOKEN, "HF_HUB_VERBOSITY": "debug", "HF_DEBUG": "1"}
    assert watch.start("pull", "acme/tiny-GGUF", "--verbose", **env).exit_code == 0
    model = "acme/tiny-GGUF"
    for words in (
        ["show", model, "--json"], ["verify", model, "--json"], ["login", "--status", "--json"],
        ["logs", "on"], ["run", model, "Hi", "-n", "2", "--verbose"], ["list", "--json"], ["config"],
        ["quantize", model, "Q4_0", "-o", watch.home / "q.gguf"], ["lock", model, "--lock", watch.home / "owm.lock"],
        ["bench", model, "-p", "8", "-n", "2", "-r", "1"], ["logs", "--json"], ["export", model, watch.home],
    ):  # fmt: skip
        watch.run(*words, HF_TOKEN=TOKEN)
    assert all(done.exit_code == 0 for done in watch.said), [done.stderr for done in watch.said if done.exit_code]
    assert watch.leaks() == []


@pytest.mark.parametrize("status", [400, 401, 403])
def test_no_error_of_the_hub_says_the_token(watch: Watch, private: HubServer, status: int) -> None:
    said = json.dumps({"error": f"the token {TOKEN} is no good"}).encode()
    private.fail(times=None, method=None, status=status, body=said, headers={"X-Error-Message": f"Bearer {TOKEN}"})
    done = watch.run("pull", "acme/tiny-GGUF", "--verbose", HF_TOKEN=TOKEN)
    assert done.exit_code != 0
    assert watch.leaks() == []


def test_the_hubs_token_goes_to_no_host_that_it_redirects_its_interface_to(
    watch: Watch, private: HubServer, origins: Callable[..., OriginServer]
) -> None:
    other = origins("localhost")
    private.fail("/api/", method=None, times=None, status_of_body=307, headers={"Location": f"{other.address}/api"})
    private.fail("/resolve/", method=None, times=None, status_of_body=307, headers={"Location": f"{other.address}/m"})
    assert watch.run("pull", "acme/tiny-GGUF", HF_TOKEN=TOKEN).exit_code != 0
    assert watch.run("pull", "acme/tiny-GGUF:tiny-Q8_0.gguf", HF_TOKEN=TOKEN).exit_code != 0
    assert other.told
    assert not any(CANARY in told for told in other.told)


def test_a_token_that_is_kept_lies_in_its_own_file_only(watch: Watch, private: HubServer) -> None:
    assert watch.start("login", "--verbose", stdin=f"{TOKEN}\n").exit_code == 0
    assert watch.run("pull", "acme/tiny-GGUF").exit_code == 0
    assert watch.leaks(but_in=("token", "stored_tokens")) == []
    for name in ("token", "stored_tokens"):
        assert (watch.home / "hf" / name).stat().st_mode & 0o077 == 0


def test_a_warning_that_the_hub_sends_is_not_passed_on(watch: Watch, private: HubServer) -> None:
    private.fail(times=None, method=None, headers={"X-HF-Warning": f"x; Bearer {TOKEN} \x9b31m"})
    done = watch.start("pull", "acme/tiny-GGUF", HF_TOKEN=TOKEN)
    assert "\x9b" not in done.stderr
    assert watch.leaks() == []


def test_a_password_in_the_address_of_the_hub_is_not_said(watch: Watch, private: HubServer) -> None:
    endpoint = private.endpoint.replace("://", f"://me:{CANARY}@")
    private.fail(times=None, method=None, status=403)
    watch.start("pull", "acme/tiny-GGUF", HF_ENDPOINT=endpoint)
    watch.start("login", "--status", HF_ENDPOINT=endpoint, HF_TOKEN=TOKEN)
    assert watch.leaks() == []


# -- web addresses -----------------------------------------------------------------------------------------------------


def test_a_signed_address_is_kept_and_said_nowhere(
    watch: Watch, origins: Callable[..., OriginServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, other = origins(), origins("localhost")
    home.redirect("/m.gguf", f"{other.address}/x?X-Amz-Signature={CANARY}")
    other.give("/x", GGUF, cuts=1)
    address = f"{home.address}/m.gguf?signature={CANARY}"
    assert watch.run("pull", address, "--verbose").exit_code == 0
    watch.run("logs", "on")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.txt").write_text("Why?\n")
    for words in (
        ["run", address, "Hi", "-n", "2"], ["list", "--json"], ["path", address], ["logs", "--json"],
        ["chat", address, "--plain", "--max-tokens", "1"],
        ["alias", "mine", address], ["batch", "rows.txt", "-m", address, "-n", "1", "-o", watch.home / "a.jsonl"],
        ["sessions", "--json"], ["config", "set", address, "temp=1"], ["fit", address],
        ["quantize", address, "Q4_0", "-o", "q.gguf"], ["quality", address, "./q.gguf", "--chunks", "4"],
        ["bench", address, "-p", "8", "-n", "1", "-r", "1"], ["update", address],
        ["lock", address, "--lock", watch.home / "owm.lock"],
    ):  # fmt: skip
        watch.run(*words)
    assert [done.stderr for done in watch.said if done.exit_code] == []
    assert watch.leaks() == []


@pytest.mark.parametrize("fault", ["refused", "gone", "busy", "a page", "a loop", "a place that is none", "cut"])
def test_no_error_says_a_signed_address(watch: Watch, origins: Callable[..., OriginServer], fault: str) -> None:
    home = origins()
    signed = f"{home.address}/x?signature={CANARY}"
    home.redirect("/m.gguf", "http://[" + CANARY if fault == "a place that is none" else signed)
    answers = {
        "refused": Reply(403, reason=CANARY), "gone": Reply(404, reason=CANARY), "busy": Reply(418, reason=CANARY),
        "a page": Reply(200, {"Content-Type": "text/html"}, CANARY.encode()),
        "a loop": Reply(302, {"Location": signed}),
    }  # fmt: skip
    home.answers["/x"] = answers.get(fault, Reply(body=GGUF[:1000]))  # a file that is cut short
    done = watch.run("pull", f"{home.address}/m.gguf?token={CANARY}", "--verbose")
    assert done.exit_code != 0
    assert watch.leaks() == []


@pytest.mark.parametrize("command", ["pull", "run", "show", "chat"])
def test_an_address_with_a_password_is_refused_and_not_repeated(watch: Watch, command: str) -> None:
    done = watch.run(command, f"https://me:{CANARY}@127.0.0.1:1/m.gguf")
    assert done.exit_code == 2
    assert watch.leaks() == []


# -- registries --------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    """A registry that asks for the password that Docker's file has of it."""
    with RegistryServer(needs_token=True, user=("me", CANARY)) as server:
        layer = Blob("application/vnd.docker.ai.gguf.v3", GGUF)
        config = json_blob("application/vnd.docker.ai.model.config.v0.1+json", {"config": {"format": "gguf"}})
        server.put("o/m", "latest", manifest_of([layer], config), [layer, config])
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": PACKED}}}))
        yield server


def test_the_password_of_a_registry_goes_to_its_own_place_for_tokens_only(
    watch: Watch, registry: RegistryServer
) -> None:
    assert watch.run("pull", f"oci://{registry.host}/o/m", "--verbose").exit_code == 0
    assert registry.asked("token")[0].headers["authorization"] == f"Basic {PACKED}"
    for server in ("registry", "cdn"):
        assert registry.asked(server)
        assert all(PACKED not in str(seen.headers) for seen in registry.asked(server))
    assert all("authorization" not in seen.headers for seen in registry.asked("cdn"))
    assert watch.leaks() == []


def test_a_place_for_tokens_on_another_host_is_not_told_the_password(
    watch: Watch, registry: RegistryServer, origins: Callable[..., OriginServer]
) -> None:
    other = origins("localhost")
    other.answers[""] = Reply(401)
    registry.realm = f"{other.address}/token"
    done = watch.run("pull", f"oci://{registry.host}/o/m")
    assert done.exit_code == 4
    assert "it asks for the password at localhost, which is not told that of 127.0.0.1" in done.stderr
    assert other.told
    assert not any(PACKED in told or CANARY in told for told in other.told)
    assert watch.leaks() == []


def test_a_place_for_tokens_that_redirects_passes_no_password_on(
    watch: Watch, registry: RegistryServer, origins: Callable[..., OriginServer]
) -> None:
    between, other = origins(), origins("localhost")
    between.redirect("/token", f"{other.address}/token", 307)
    other.answers[""] = Reply(401)
    registry.realm = f"{between.address}/token"
    assert watch.run("pull", f"oci://{registry.host}/o/m").exit_code == 4
    assert other.told
    assert not any(PACKED in told for told in other.told)


def test_a_registry_in_the_place_of_ollamas_is_not_told_the_password_of_ollamas(
    watch: Watch, tmp_path: Path, origins: Callable[..., OriginServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = origins()
    other.answers[""] = Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.ollama.ai": {"auth": PACKED}}}))
    done = watch.run("pull", "ollama:tiny", DOCKER_CONFIG=str(tmp_path), OWM_OLLAMA_REGISTRY=other.address)
    assert done.exit_code == 4
    assert other.told
    assert not any(PACKED in told for told in other.told)


def test_the_token_of_modelscope_goes_to_modelscope_only(watch: Watch) -> None:
    with ModelScopeServer({"Owner/Tiny-GGUF": {"tiny-Q8_0.gguf": GGUF}}) as server:
        server.token = TOKEN
        env = {"MODELSCOPE_DOMAIN": server.base, "MODELSCOPE_API_TOKEN": TOKEN}
        assert watch.run("pull", "modelscope:Owner/Tiny-GGUF", "--verbose", **env).exit_code == 0
        assert any(TOKEN in str(headers) for headers in server.asked("site"))
        assert server.asked("cdn")
        assert not any(TOKEN in str(headers) for headers in server.asked("cdn"))
        server.token = "another"
        assert watch.run("pull", "modelscope:Owner/Other-GGUF", **env).exit_code != 0
    assert watch.leaks() == []


# -- proxies, pip, what owm starts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["works", "gone", "none", "socks"])
def test_the_password_of_a_proxy_is_said_nowhere(watch: Watch, origins: Callable[..., OriginServer], kind: str) -> None:
    home = origins()
    home.give("/m.gguf", GGUF)
    with ProxyServer() as proxy:
        place = {"works": proxy.address, "gone": "http://127.0.0.1:1", "none": "gopher://x", "socks": "socks5://x:1"}
        address = place[kind].replace("://", f"://me:{CANARY}@")
        env = {"HTTP_PROXY": address, "http_proxy": address, "NO_PROXY": None, "no_proxy": None}
        done = watch.run("pull", f"{home.address}/m.gguf", "--verbose", **env)
        assert (done.exit_code == 0) == (kind == "works")
        if kind == "works":
            assert f"Basic {PACKED}" in proxy.authorizations
        assert not any("proxy-authorization" in told.headers for told in home.told)
    assert watch.leaks() == []


def test_the_password_of_a_package_index_is_said_nowhere(
    watch: Watch, origins: Callable[..., OriginServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = origins()
    index.answers[""] = Reply(403, reason=f"Forbidden {CANARY}")
    address = index.address.replace("://", f"://me:{CANARY}@") + "/simple"
    env = {"PIP_INDEX_URL": address, "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    done = watch.run("pull", "pypi:no-such-model==1.0", "--verbose", **env)
    assert done.exit_code != 0
    assert any(PACKED in told for told in index.told)
    assert watch.leaks() == []


def test_no_program_that_owm_starts_has_a_secret_in_its_command_line(
    watch: Watch, private: HubServer, tmp_path: Path
) -> None:
    """A module that Python loads at its start notes the command line of every process, as `ps` would show it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "with open(os.environ['OWM_TEST_ARGV'], 'ab') as file:\n"
        "    file.write(open('/proc/self/cmdline', 'rb').read() + b'\\n')\n"
    )
    path = os.pathsep.join((str(tmp_path), str(ROOT), str(ROOT / "tests")))
    env = {"HF_TOKEN": TOKEN, "PYTHONPATH": path, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    for words in (
        ["pull", "acme/tiny-GGUF"], ["quantize", "acme/tiny-GGUF", "Q4_0", "-o", tmp_path / "q.gguf"],
        ["run", "acme/tiny-GGUF", "Hi", "-n", "1"], ["pull", "pypi:no-such-model==1.0"],
    ):  # fmt: skip
        watch.run(*words, OWM_TEST_ARGV=str(watch.home / "argv"), **env)
    lines = (watch.home / "argv").read_bytes().splitlines()
    assert len(lines) >= 3  # the child that plans, the one that tries the model, and pip
    assert watch.leaks() == []
