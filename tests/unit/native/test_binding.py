"""The binding is loaded without its package, and the package is there for whoever asks for it."""

import subprocess
import sys

import pytest


def _run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_the_package_is_not_executed() -> None:
    script = (
        "import sys, owm.native.binding as b; b.llama.llama_backend_init(); print('llama_cpp.llama' in sys.modules)"
    )
    assert _run(script) == "False"


def test_c_functions_are_had_from_the_package_unexecuted() -> None:
    script = (
        "import sys, owm.native.binding as b, llama_cpp as c\n"
        "assert c.llama_backend_init is b.llama.llama_backend_init and c.llama_cpp is b.llama\n"
        "print('llama_cpp.llama' in sys.modules)"
    )
    assert _run(script) == "False"


@pytest.mark.parametrize(
    "use",
    ["from llama_cpp import Llama", "from llama_cpp import *", "import llama_cpp; Llama = llama_cpp.Llama",
     "from llama_cpp.llama import Llama"],
)  # fmt: skip
def test_whoever_asks_for_the_package_gets_it_whole(use: str) -> None:
    script = (
        f"import owm.native.binding as b\n{use}\nimport llama_cpp, llama_cpp.llama_cpp\n"
        "print(Llama.__name__, llama_cpp.Llama.__name__, llama_cpp.__version__ != '', llama_cpp.llama_cpp is b.llama)"
    )
    assert _run(script) == "Llama Llama True True"


def test_a_package_that_is_there_already_is_left_as_it_is() -> None:
    script = "import llama_cpp as c, owm.native.binding as b; print(c.llama_cpp is b.llama, c.Llama.__name__)"
    assert _run(script) == "True Llama"
