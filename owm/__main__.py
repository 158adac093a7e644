"""Entry point of `owm` and `python -m owm`."""

import gc
import os
import signal
import sys

# New objects before they are searched for garbage. Modules are made of objects that stay: searching them every 700, as
# Python does of its own accord, takes a tenth of the time that importing takes.
GARBAGE_THRESHOLD = 20_000


def main() -> None:
    """Run the command line and exit with its code."""
    # While modules are imported, Ctrl-C simply ends the program; the command line takes it over when it is there.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_missing_streams()
    try:
        if sys.argv[1:] == ["--version"]:
            from owm import __version__

            sys.stdout.write(f"owm {__version__}\n")
            sys.stdout.flush()
            return
        gc.set_threshold(GARBAGE_THRESHOLD)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's: owm has nothing for them to do but spin
        from owm.cli.app import main as run
        from owm.cli.tracebacks import take_over

        take_over()
        code = run(sys.argv[1:])
        _let_go_of_stderr()
        gc.freeze()  # the end of the process need not look for garbage among all that was loaded
        sys.exit(code)
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:
        if error.filename is not None:  # a file's, and a bug that its error was not translated
            raise
        sys.stderr.write(f"error: cannot write to stdout: {error.strerror}\n")
        os._exit(1)


def _let_go_of_stderr() -> None:
    """Drop what stderr would not take (a full disk, a reader that left): Python would end with a code of its own."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _open_missing_streams() -> None:
    """Give a closed stdin, stdout or stderr a place to go, lest the next file that is opened takes its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            # Not the number itself, which may be another file's for a moment: what is written there would be an error.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


if __name__ == "__main__":
    main()
