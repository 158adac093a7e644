# Shared by the scripts that need owm's virtual environment; to be sourced from the root of the checkout.
# shellcheck shell=sh

# A name on PATH proves nothing (version managers leave stubs behind), so every candidate is run.
_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

_find_python() {
    if [ -n "${PYTHON:-}" ]; then
        if _is_new_enough "$PYTHON"; then echo "$PYTHON"; return; fi
        echo "error: \$PYTHON is not a Python 3.11 or newer: $PYTHON; hint: unset it or name another one" >&2
        return 1
    fi
    found=
    for candidate in python3.13 python3.12 python3.11 python3; do
        if _is_new_enough "$candidate"; then echo "$candidate"; return; fi
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) && found=$version
    done
    echo "error: owm needs Python 3.11 or newer, found: ${found:-none}; hint: install one, or name it: PYTHON=/path/to/python3 $0" >&2
    return 1
}

# owm_venv DIR [--extra NAME] [--lowest]: make or bring up to date a virtual environment with owm in it.
owm_venv() {
    if [ -e "$1/bin/python" ] || [ -L "$1/bin/python" ]; then
        _python=$1/bin/python
        if ! _is_new_enough "$_python"; then
            echo "error: $1 has no working Python 3.11 or newer; hint: remove the folder $1 and run $0 again" >&2
            return 1
        fi
    else
        _python=$(_find_python) || return 1
    fi
    "$_python" scripts/lib/install.py "$@"
}
