"""What the benchmarks and proofs work on: a real small model, llama.cpp's own tools, and the threads both may use."""

import os
import subprocess
import sys
from pathlib import Path

from lib.inside import BIN, ROOT


def smollm2(asked: Path | None) -> Path:
    """Return the model file that was asked for, or SmolLM2's, which is pulled if the store has none."""
    if asked is not None:
        return asked
    if subprocess.run([BIN / "owm", "pull", "smollm2"], stdout=sys.stderr, check=False).returncode:
        sys.exit("error: smollm2 could not be pulled; hint: name a model file with `--model FILE`")
    return Path(_output(BIN / "owm", "path", "smollm2"))


def reference(*tools: str) -> Path:
    """Return the folder of llama.cpp's own tools (all that are usual, else these), built if they are not there."""
    return Path(_output(ROOT / "scripts" / "reference", *tools))


def parity_python() -> Path:
    """Return the Python of the environment with torch and transformers, which is made if it is not there.

    OWM_PARITY_PYTHON=FILE names one made elsewhere.
    """
    if elsewhere := os.environ.get("OWM_PARITY_PYTHON"):
        return Path(elsewhere)
    venv = ".venv-parity"
    install = [sys.executable, ROOT / "scripts" / "lib" / "install.py", venv, "--extra", "parity"]
    if subprocess.run(install, stdout=sys.stderr, check=False).returncode:
        sys.exit(f"error: {venv} could not be made")
    return ROOT / venv / "bin" / "python"


def reference_converter(pre: str | None = None) -> list[str | Path]:
    """Return the command that `convert_hf_to_gguf.py` is; its arguments follow.

    With `pre`, the converter is told the name of a BPE pre-tokenizer whose vocabulary it cannot know.
    """
    library = ROOT / "scripts" / "lib"
    tree = Path(_output(sys.executable, library / "parity_source.py"))
    if pre is None:
        return [parity_python(), tree / "convert_hf_to_gguf.py"]
    return [parity_python(), library / "reference_converter.py", tree, pre]


def threads() -> int:
    """Return the number of threads that owm would choose, for both sides to use."""
    from owm.hardware import probe

    return probe.cores().usable


def _output(*command: str | Path) -> str:
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(f"error: exit code {finished.returncode} from {Path(command[0]).name}")
    return finished.stdout.strip()
