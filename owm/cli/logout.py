"""`owm logout`: forget the token for the Hub."""

from owm.cli import options as o
from owm.cli.output import Output


def command(json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False) -> None:
    """Log out of the Hub: remove its tokens from this machine."""
    from owm.store.sources import hub_login

    out = Output(json, quiet, verbose)
    was_there = hub_login.log_out()
    out.note("logged out" if was_there else "was not logged in")
    variable = hub_login.token_of_environment()
    if variable is not None:
        out.warn(f"{variable} is set, and is still sent to the Hub")
    if json:
        out.data({"was_logged_in": was_there, "token_from": variable})
