"""Make or bring up to date a virtual environment with owm in it. Runs with any bare Python >= 3.11.

Does nothing, quickly, when pyproject.toml is what it was at the last complete install.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from building import announce, fail, follow

ROOT = Path(__file__).resolve().parents[2]


def python_of(venv: Path) -> Path:
    """Name the interpreter of a virtual environment."""
    return venv / "bin" / "python"


def works(command: list[str], stdin: str | None = None) -> bool:
    """Tell whether a command can be run and succeeds."""
    try:
        return subprocess.run(command, input=stdin, text=True, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def require_compilers() -> None:
    """Stop unless a C and a C++ compiler can compile a line that needs their standard headers."""
    for language, variable, names, header in (
        ("C", "CC", ("cc", "gcc", "clang"), "stdlib.h"),
        ("C++", "CXX", ("c++", "g++", "clang++"), "string"),
    ):
        chosen = os.environ.get(variable)
        candidates = [chosen.split()] if chosen else [[name] for name in names if shutil.which(name)]
        dialect = ["-x", "c" if language == "C" else "c++", "-fsyntax-only", "-"]
        if not any(works(command + dialect, f"#include <{header}>\n") for command in candidates):
            if chosen:
                fail(f"${variable} is not a working {language} compiler: {chosen}", "unset it or name another one")
            hint = "xcode-select --install" if sys.platform == "darwin" else "sudo apt install build-essential"
            fail(f"no {language} compiler to build llama.cpp with, tried: {', '.join(names)}", f"`{hint}` or the like")


def make_venv(venv: Path) -> None:
    """Make the virtual environment, or finish one whose making was interrupted."""
    python = python_of(venv)
    if python.exists() and works([str(python), "-m", "pip", "--version"]):
        return
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        fail(f"Python {version} here cannot make virtual environments", f"`sudo apt install python{version}-venv`")
    if python.exists():
        command = [str(python), "-m", "ensurepip", "--upgrade", "--default-pip"]
    else:
        announce(f"making {venv.name} with Python {sys.version.split()[0]}")
        command = [sys.executable, "-m", "venv", str(venv)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        reason = (made.stderr or made.stdout).strip().splitlines()[-1:] or ["no reason given"]
        fail(f"cannot make the virtual environment {venv.name}: {reason[0]}", "remove that folder and try again")


def lowest_versions(venv: Path) -> Path:
    """Write pip constraints that hold every dependency at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [re.sub(r"^([A-Za-z0-9._-]+)>=([^,;\s]+)[^;]*", r"\1==\2", line) for line in project["dependencies"]]
    loose = [line for line in lines if "==" not in line]
    if loose:
        fail(f"dependencies without a lower bound: {', '.join(loose)}", "give them one in pyproject.toml")
    path = venv / "lowest.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Read the arguments and do what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path)
    parser.add_argument("--extra", help="an extra of pyproject.toml")
    parser.add_argument("--lowest", action="store_true", help="hold every dependency at its lower bound")
    options = parser.parse_args()
    os.chdir(ROOT)
    venv = ROOT / options.venv

    # The path too: scripts in a virtual environment name their interpreter in full, so a moved checkout reinstalls.
    key = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    stamp = venv / "owm-installed.json"
    installed = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
    if installed.get("key") != key:
        installed = {}
    wanted = {options.extra} if options.extra else set()
    if installed and wanted <= set(installed["extras"]):
        return

    has_llama = "import importlib.metadata as m; m.version('llama-cpp-python')"
    if not works([str(python_of(venv)), "-c", has_llama]):
        require_compilers()
    make_venv(venv)
    extras = sorted(wanted | set(installed.get("extras", ())))
    announce(f"installing owm{f' with its {options.extra} tools' if options.extra else ''} into {venv.name}")
    (venv / ".gitignore").write_text("*\n", encoding="utf-8")  # as venv itself does from Python 3.13 on
    stamp.unlink(missing_ok=True)  # an interrupted install must not look complete
    constraints = ["--constraint", str(lowest_versions(venv))] if options.lowest else []
    target = f".[{','.join(extras)}]" if extras else "."
    follow(
        [str(python_of(venv)), "-m", "pip", "install", "-v", "--progress-bar=off", *constraints, "--editable", target],
        venv / "install.log",
        "llama.cpp",
        5,
        # A user-wide `user = true` is an error inside a virtual environment.
        {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    stamp.write_text(json.dumps({"key": key, "extras": extras}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
