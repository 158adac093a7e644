"""What the shell is offered is typed for the user: nothing in it means anything to a shell."""

import shlex

import pytest

from owm.cli.completing import offered
from owm.cli.options import complete_models
from owm.store.local import Store
from support.run import run
from support.stored import put_model


@pytest.mark.parametrize(
    "name",
    ["a$(touch x)", "a`x`", "a;x", "a|x", "a&x", "a>x", "a x", "a\nx", "a'x", 'a"x', "a\\x", "a*", "a?", "a[x]", "a{x}",
     "a!x", "a#x", "a(x)", "~a", "-a", "--yes", "a\x1b[2J", "a\x9b2J", "a\u202ex", "a\tx", ""],
)  # fmt: skip
def test_a_name_that_means_something_to_a_shell_is_not_offered(name: str) -> None:
    assert offered([name], name[:1]) == []


@pytest.mark.parametrize(
    "name", ["smollm2:135m:Q4_1", "acme/Model-GGUF@main:Q4_K_M", "oci://host:5000/a/b:c", "/a/b+c,d.gguf", "a=b%20"]
)
def test_names_as_models_have_them_are_offered(name: str) -> None:
    assert offered([name], name[:2]) == [name]
    assert shlex.split(name) == [name]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_stored_model_with_a_hostile_name_is_not_offered(store: Store, shell: str) -> None:
    put_model(store, "acme/good", "Q8_0")
    put_model(store, "acme/evil", "$(touch${IFS}x)\x1b[2J")
    assert complete_models("acme") == ["acme/good:Q8_0"]
    env = {
        "_OWM_COMPLETE": f"complete_{shell}", "COMP_WORDS": "owm run acme", "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "owm run acme", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    done = run(["-m", "owm"], env)
    assert "acme/good" in done
    assert "evil" not in done
