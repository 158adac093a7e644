"""`owm login`: keep a token for the Hub, where other tools of the Hub look for it too."""

from typing import Annotated

import typer

from owm.cli import options as o
from owm.cli.output import Output

StatusOpt = Annotated[bool, typer.Option("--status", help="Only say who is logged in.")]


def command(
    status: StatusOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Log in to the Hub with a token, for gated and private models.

    The token is asked for and not shown, or is read from a pipe (`owm login < token.txt`); never from the command line,
    which others on this machine can see. The Hub checks it, then it is kept where `hf auth login` keeps it.
    """
    from owm.cli.failures import ExitCode
    from owm.store.sources import hub_login

    out = Output(json, quiet, verbose)
    if status:
        return _say_status(out)
    variable = hub_login.token_of_environment()
    user = hub_login.log_in(_token())
    if user is None:
        out.warn("offline: the token was kept, but the Hub was not asked whether it is valid")
    else:
        out.note(f"logged in as {user}")
    if variable is not None:
        out.warn(f"{variable} is set and counts before the token that was just kept")
    if json:
        out.data(_record(user, variable, is_logged_in=True))
    return ExitCode.OK


def _say_status(out: Output) -> int:
    from owm.cli.failures import ExitCode
    from owm.store.sources import hub_client, hub_login

    variable = hub_login.token_of_environment()
    is_logged_in = hub_login.has_token()
    user = hub_login.who() if is_logged_in and not hub_client.is_offline() else None
    if out.as_json:
        out.data(_record(user, variable, is_logged_in=is_logged_in))
    elif not is_logged_in:
        out.note("not logged in; `owm login` asks for a token")
    else:
        by = f" by {variable}" if variable else ""
        out.data(None, lines=[f"logged in as {user}{by}" if user else f"logged in{by}, not checked: offline"])
    return ExitCode.OK if is_logged_in else ExitCode.FAILURE


def _record(user: str | None, variable: str | None, *, is_logged_in: bool) -> dict[str, object]:
    return {"is_logged_in": is_logged_in, "user": user, "token_from": variable or ("store" if is_logged_in else None)}


def _token() -> str:
    """Read a token: hidden on a terminal, else the pipe's first line."""
    import sys
    from getpass import getpass

    from owm.cli.secrets import spoken
    from owm.cli.terminal import is_terminal
    from owm.errors import UsageError
    from owm.store.sources.hub_login import where_to_get

    if is_terminal(sys.stdin):
        if not is_terminal(sys.stderr):
            raise UsageError("nobody can see the question for a token", hint="pipe the token in, or leave stderr alone")
        sys.stderr.write(f"{spoken(where_to_get())}\n")
        try:
            text = getpass("token (not shown): ", stream=sys.stderr)
        except EOFError:
            text = ""
    else:
        try:
            text = sys.stdin.readline(8192) if sys.stdin is not None else ""
        except UnicodeDecodeError:
            raise UsageError("that is no token: it is no text") from None
    if not text.strip():
        raise UsageError("no token was given", hint="`owm login` asks for one, `owm login < FILE` reads it from a file")
    return text
