"""Templates in a process of their own: the same texts and errors, and an end to whatever the sandbox would miss."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from owm.engine import rendering
from owm.engine.program import Program
from owm.engine.rendering import Rendering
from owm.engine.template import ChatTemplate, start
from owm.errors import TemplateError, TemplateRefusal
from support.run import ROOT
from support.tiny_gguf import CHATML

TEMPLATES = ROOT / "tests" / "support" / "templates"
TURNS = [
    {"role": "user", "content": "Why?\u2028\ud83d"},
    {"role": "assistant", "content": "Weil <ü> 🙂"},
    {"role": "user", "content": "Hm\0"},
]
NAMES: dict[str, Any] = {
    "messages": TURNS,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "tools": [{"type": "function", "function": {"name": "x", "parameters": {"type": "object", "properties": {}}}}],
    "date_string": "26 Jul 2024",
}
FOREIGN = "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}"  # nobody published it


@contextmanager
def rendered(source: str) -> Iterator[Rendering]:
    process = Rendering(source)
    try:
        yield process
    finally:
        process.close()


def outcome(render: Callable[[], str]) -> tuple[str, str, str | None]:
    try:
        return "text", render(), None
    except TemplateError as error:
        return type(error).__name__, str(error), error.hint


@pytest.mark.parametrize("file", sorted(TEMPLATES.glob("*.jinja")), ids=lambda file: file.stem)
def test_a_template_renders_as_in_this_process(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    with rendered(source) as process:
        for turns in (TURNS, TURNS[:1], TURNS[1:]):
            names = NAMES | {"messages": turns}
            assert outcome(lambda names=names: process.render(names)) == outcome(
                lambda names=names: Program(source).render(names)
            )


def test_what_python_imports_late_is_there_though_no_file_can_be_opened() -> None:
    source = (
        "{% set größe = 'ﬁ\\N{LOW LINE}'|title|upper %}{% set ﬁ = größe %}{{ ﬁ }}{{ messages|tojson(indent=2) }}"
        "{{ '%.2f %s'|format(1.5, [1]) }}{{ '{:>5}'.format(größe) }}{{ 2.567|round(1) }}{{ [2, 1]|sort|unique|list }}"
        "{{ messages|groupby('role')|list|length }}{{ 'a b c d e f g h i'|truncate(9) }}{{ '<'|e }}"
        "{{ strftime_now('%Y %B %j') }}"
        "{{ '1' is eq 1 }}"
    )
    with rendered(source) as process:
        assert process.render(NAMES) == Program(source).render(NAMES)


def test_errors_and_refusals_come_across_as_they_are() -> None:
    source = (
        "{% set word = messages[0].content %}{% if word == 'refuse' %}{{ raise_exception('No ä.\n Sir') }}"
        "{% elif word == 'fail' %}{{ missing.name }}{% elif word == 'much' %}{{ 'a' * 10 ** 9 }}"
        "{% else %}{{ word }}{% endif %}"
    )
    program = Program(source)
    with rendered(source) as process:
        for word in ("refuse", "fail", "much", "a text"):
            names = NAMES | {"messages": [{"role": "user", "content": word}]}
            assert outcome(lambda names=names: process.render(names)) == outcome(
                lambda names=names: program.render(names)
            )
        with pytest.raises(TemplateRefusal):
            process.render(NAMES | {"messages": [{"role": "user", "content": "refuse"}]})


@pytest.mark.parametrize("source", ["\n{% if %}", "{% include 'x' %}", "{{ 1" + " + 1" * 10_000 + " }}"])
def test_what_does_not_compile_says_so_each_time(source: str) -> None:
    with pytest.raises(TemplateError) as expected:
        Program(source)
    with rendered(source) as process:
        for _ in range(2):
            with pytest.raises(TemplateError) as caught:
                process.check()
            assert (str(caught.value), caught.value.hint) == (str(expected.value), expected.value.hint)


def test_a_long_template_and_a_long_conversation_pass_through_the_pipes() -> None:
    source = "{# " + "ä" * 60_000 + " #}{% for m in messages %}{{ m.content }}{% endfor %}"
    content = "ж" * 500_000
    with rendered(source) as process:
        assert process.render(NAMES | {"messages": [{"role": "user", "content": content}] * 3}) == content * 3


def test_one_process_serves_all_renderings_and_several_threads() -> None:
    found: dict[int, str] = {}
    with rendered(FOREIGN) as process:

        def work(number: int) -> None:
            found[number] = process.render(NAMES | {"messages": [{"role": "user", "content": str(number)}]})

        process.check()
        pid = pid_of(process)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pid_of(process) == pid
    assert found == {number: f"user: {number};" for number in range(8)}


def test_only_what_nobody_vouches_for_gets_a_process() -> None:
    assert isinstance(start(CHATML), Program)
    assert isinstance(start(FOREIGN, is_trusted=True), Program)
    begun = start(FOREIGN)
    assert isinstance(begun, Rendering)
    template = ChatTemplate(FOREIGN, program=begun)
    assert template.render(TURNS[1:2]) == "assistant: Weil <ü> 🙂;"
    template.close()


def test_a_process_that_died_is_told_of_and_started_again() -> None:
    with rendered(FOREIGN) as process:
        process.check()
        psutil.Process(pid_of(process)).kill()
        with pytest.raises(TemplateError, match="was stopped: its process was ended by signal 9"):
            process.render(NAMES)
        assert process.render(NAMES | {"messages": TURNS[1:2]}) == "assistant: Weil <ü> 🙂;"


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc")
def test_the_process_has_no_secrets_and_ends_with_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    process = Rendering(FOREIGN)
    process.check()
    child = psutil.Process(pid_of(process))
    assert "HF_TOKEN" not in child.environ()
    del process
    assert not child.is_running()


def test_the_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = f"""if True:
        import time
        from owm.engine.rendering import Rendering
        process = Rendering({FOREIGN!r})
        process.check()
        print(process._process.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=60)
    assert gone == [child]


def test_ctrl_c_ends_the_rendering_and_its_process() -> None:
    script = """if True:
        import os, signal, sys, threading
        from owm.engine import rendering
        rendering._CHILD = ("-c", "import time; time.sleep(600)")
        process = rendering.Rendering("x")
        pid = process._process.pid
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process.render({"messages": []})
        except KeyboardInterrupt:
            print("interrupted", pid)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    said, pid = done.stdout.split()
    assert said == "interrupted"
    assert not psutil.pid_exists(int(pid))


# -- a process that does not keep to anything, as one might that got out of the sandbox --------------------------------

READY = "import sys, time, os, signal; out = sys.stdout.buffer; out.write(b'text 0\\n'); out.flush(); "
COMPILED = READY + "out.write(b'text 0\\n'); out.flush(); sys.stdin.buffer.readline(); sys.stdin.buffer.readline(); "
LIARS = {
    "says nothing": ("time.sleep(600)", "it did not come to an end in"),
    "says half of it": ("out.write(b'text 9\\nabc'); out.flush(); time.sleep(600)", "it did not come to an end in"),
    "ends": ("sys.exit(0)", "its process came to an end without an answer"),
    "ends in the middle": ("out.write(b'text 9\\nabc')", "its process came to an end without an answer"),
    "crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", "its process was ended by signal 11"),
    "says other things": ("out.write(b'pickle 3\\nabc'); out.flush(); time.sleep(600)", "its process was ended by"),
    "counts backwards": ("out.write(b'text -1\\nabc'); out.flush(); time.sleep(600)", "its process was ended by"),
    "counts in other digits": ("out.write('text ٣\\nabc'.encode()); out.flush(); time.sleep(600)", "its process was"),
    "says too much": ("out.write(b'text 99999999999\\n'); out.flush(); time.sleep(600)", "its process was ended by"),
    "errs too much": ("out.write(b'error 5000\\n' + b'x' * 5000); out.flush(); time.sleep(600)", "its process was"),
    "a line without an end": ("out.write(b'x' * 1000000); out.flush(); time.sleep(600)", "its process was ended by"),
    "is no text": ("out.write(b'text 2\\n\\xff\\xff'); out.flush(); time.sleep(600)", "its process was ended by"),
}


@pytest.mark.parametrize("name", LIARS)
def test_a_process_that_lies_is_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deed, said = LIARS[name]
    monkeypatch.setattr(rendering, "_CHILD", ("-c", COMPILED + deed))
    with rendered("x") as process:
        process.check()
        child = psutil.Process(pid_of(process))
        if "sleep" in deed and "come to an end" in said:
            monkeypatch.setattr(rendering, "KILL_SECONDS", -0.7)
        with pytest.raises(TemplateError, match=f"the model's chat template was stopped: {said}"):
            process.render(NAMES)
        assert not child.is_running()


def test_a_process_that_never_gets_ready_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_CHILD", ("-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(rendering, "START_SECONDS", 0.1)
    with rendered("x" * 100_000) as process, pytest.raises(TemplateError, match="was stopped: it did not come"):
        process.check()


SHUT_IN = """if True:
    import json, socket
    from owm.engine import rendering_child
    tried = {{}}
    def attempt(name, call):
        try:
            call()
            tried[name] = "done"
        except (OSError, MemoryError) as error:
            tried[name] = type(error).__name__
    rendering_child._shut_in()
    rendering_child._allow({n_bytes})
    attempt("small", lambda: bytearray(200 << 20))
    attempt("large", lambda: bytearray(400 << 20))
    attempt("file", lambda: open("/etc/hostname"))
    attempt("own file", lambda: open({file!r}, "w"))
    attempt("socket", lambda: socket.socket())
    print(json.dumps(tried))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not hold these limits")
@pytest.mark.parametrize(("n_bytes", "large"), [(1000, "MemoryError"), (8_000_000, "done")])
def test_the_system_refuses_memory_files_and_sockets(n_bytes: int, large: str, tmp_path: Path) -> None:
    file = tmp_path / "made"
    done = subprocess.run(
        [sys.executable, "-c", SHUT_IN.format(n_bytes=n_bytes, file=str(file))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    refused = dict.fromkeys(("file", "own file", "socket"), "OSError")
    assert json.loads(done.stdout) == {"small": "done", "large": large, **refused}
    assert not file.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not hold this limit")
def test_a_process_whose_parent_cannot_end_it_runs_out_of_processor_time() -> None:
    script = "from owm.engine import rendering_child as c; c.SPARE_SECONDS = -0.5; c._allow(0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGXCPU


def pid_of(process: Rendering) -> int:
    assert process._process is not None
    return process._process.pid
