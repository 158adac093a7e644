"""The table of settings: what holds, and which layer says so."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.settings.layers import Setting


def show_settings(settings: "Mapping[str, Setting]", out: Output) -> None:
    """Write every effective setting with its origin; one that nobody has set says what holds instead."""
    from owm.settings.keys import KEYS
    from owm.settings.layers import rows

    found = rows(settings)
    if out.as_json:
        out.data(found)
        return
    for row in found:
        if row["value"] is None and row["name"] in KEYS:
            row["value"] = f"({KEYS[row['name']].unset})"
    out.table(found, {"name": "SETTING", "value": "VALUE", "origin": "FROM"})
