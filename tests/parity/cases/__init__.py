"""All proofs, one module a family, each with a tuple CASES."""

from importlib import import_module
from pkgutil import iter_modules

from parity.case import Case

CASES: tuple[Case, ...] = tuple(
    case
    for module in sorted(found.name for found in iter_modules(__path__))
    for case in import_module(f"{__name__}.{module}").CASES
)
