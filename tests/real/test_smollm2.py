"""The real SmolLM2 through every command, and its greedy tokens against another program's loop over llama.cpp."""

import json
import os
from pathlib import Path

import pytest

from support.run import run

PROMPTS = (
    "Why is the sky blue?",
    "def fibonacci(n):\n    ",
    "Écris une phrase sur la pluie. 雨について。🙂",
)

pytestmark = pytest.mark.real


@pytest.fixture
def stored(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the tests' cache the store of this test; return the model's path."""
    home = smollm2_path.parents[5]
    assert (home / "models").is_dir()
    monkeypatch.setenv("OWM_HOME", str(home))
    return smollm2_path


def _reference(path: Path, prompts: list[list[int]], n: int) -> list[list[int]]:
    """Return `n` greedy tokens for each prompt, from llama-cpp-python's own high-level loop."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=512, n_batch=512, flash_attn=True, verbose=False)
    answers = []
    for prompt in prompts:
        model.reset()
        answer = []
        for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            answer.append(int(token))
            if len(answer) == n or token == model.token_eos():
                break
        answers.append(answer)
    model.close()
    return answers


def test_greedy_tokens_are_those_of_another_loop(smollm2_path: Path) -> None:
    from owm.engine.model import Model
    from owm.engine.sampling import Sampling
    from owm.engine.scheduler import Request

    with Model([smollm2_path]) as model:
        prompts = [model.chat_prompt([{"role": "user", "content": text}]).tokens for text in PROMPTS]
        answers = []
        for prompt in prompts:
            with model.scheduler(512) as scheduler:
                scheduler.submit(Request(prompt, Sampling(temp=0), max_tokens=16))
                tokens = []
                for _ in range(100):
                    if scheduler.is_idle:
                        break
                    tokens += [chunk.token for chunk in scheduler.step()]
                answers.append(tokens)
    assert answers == _reference(smollm2_path, prompts, 16)


def test_every_command_works_on_it_without_a_network(stored: Path) -> None:
    listed = run(["-m", "owm", "list", "--json"]).json
    assert [model["name"] for model in listed] == ["smollm2:135m:Q4_1"]
    assert set(listed[0]) == {
        "name", "quant", "source", "revision", "commit", "licence", "architecture", "n_params", "n_ctx_train",
        "size_bytes", "path", "files", "quality", "is_gone", "owner", "created_at", "last_used",
    }  # fmt: skip
    assert listed[0]["n_params"] == 134515008
    shown = run(["-m", "owm", "show", "smollm2", "--json"]).json
    assert shown["architecture"] == "llama"
    assert shown["tensor_types"] == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert shown["has_chat_template"]
    assert run(["-m", "owm", "path", "smollm2"]).strip() == str(stored)
    assert run(["-m", "owm", "path", "smo"]).strip() == str(stored)
    (verified,) = run(["-m", "owm", "verify", "--json"]).json
    assert (verified["name"], verified["status"], verified["kind"]) == ("smollm2:135m:Q4_1", "whole", "published")
    assert "<|im_start|>" in run(["-m", "owm", "show", "smollm2", "--template"])
    answer = run(["-m", "owm", "run", "smollm2", "Why is the sky blue?", "--temp", "0", "-n", "12"])
    assert answer.startswith("The sky is blue because")
    assert answer.stderr == ""


def test_the_library_gives_the_same_answer_as_the_command(stored: Path) -> None:
    from owm import Sampling, answer, load

    with load(str(stored)) as model:
        text = "".join(chunk.text for chunk in answer(model, PROMPTS[0], sampling=Sampling(temp=0), max_tokens=12))
    done = run(["-m", "owm", "run", str(stored), PROMPTS[0], "--temp", "0", "-n", "12", "--json"])
    assert json.loads(done)["text"] == text


def test_aliases_and_names_lead_to_the_same_file(stored: Path, tmp_path: Path) -> None:
    # The cache is shared between runs: what this test writes goes to a store of its own.
    os.environ["OWM_HOME"] = str(tmp_path)
    assert run(["-m", "owm", "alias", "small", str(stored)]).exit_code == 0
    assert run(["-m", "owm", "path", "small"]).strip() == str(stored)
    assert run(["-m", "owm", "alias", "--json"]).json == [{"name": "small", "model": str(stored), "is_stored": True}]
    assert run(["-m", "owm", "alias", "smollm2", "x/y"]).exit_code == 2
    assert run(["-m", "owm", "alias", "--remove", "small"]).exit_code == 0
    assert run(["-m", "owm", "path", "small"]).exit_code == 3
