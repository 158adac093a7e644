"""Entry point of `owm` and `python -m owm`."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] == ["--version"]:
        from owm import __version__

        sys.stdout.write(f"owm {__version__}\n")
        return
    from owm.cli.app import main as run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
