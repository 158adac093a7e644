"""Fail if a test was skipped that .ci/allowed-skips does not name: a skipped test proves nothing and looks green.

Usage: skips JUNIT_XML ALLOWED. A line of ALLOWED is a pattern for `module.Class::test[parameters]`, then `  # why`.
"""

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree


def main(junit: Path, allowed: Path) -> int:
    """Print the unexpected skips and return the exit status."""
    lines = (line.split("  #")[0].strip() for line in allowed.read_text(encoding="utf-8").splitlines())
    patterns = [line for line in lines if line and not line.startswith("#")]
    n_tests = n_unexpected = 0
    for case in ElementTree.parse(junit).iter("testcase"):
        n_tests += 1
        skipped = case.find("skipped")
        name = f"{case.get('classname')}::{case.get('name')}"
        # `[` in the name of a test with parameters is no pattern.
        if skipped is None or any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns):
            continue
        n_unexpected += 1
        print(f"unexpected skip: {name}: {skipped.get('message')}")
    if n_tests == 0:
        print("no tests ran")
    return 1 if n_unexpected or n_tests == 0 else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
