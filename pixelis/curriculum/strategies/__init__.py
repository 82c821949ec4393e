"""The strategies by name, found in every module of this folder.

To add one, put a file here with a subclass of `Strategy` that has a `name`. A configuration cannot
import any other code: a training runs only strategies of this folder.
"""

import pkgutil
from collections.abc import Iterable
from importlib import import_module

from pixelis.curriculum.strategies.base import Decision, Strategy

__all__ = ["STRATEGIES", "Decision", "Strategy", "find_strategies"]


def find_strategies(folders: Iterable[str]) -> dict[str, type[Strategy]]:
    """Return the strategies in the modules of these folders of the package, by their names."""
    strategies: dict[str, type[Strategy]] = {}
    for module in sorted(item.name for item in pkgutil.iter_modules(folders)):
        for item in vars(import_module(f"{__name__}.{module}")).values():
            # A class without a name of its own is a base class.
            if isinstance(item, type) and issubclass(item, Strategy) and "name" in vars(item):
                strategies[item.name] = item
    return strategies


STRATEGIES = find_strategies(__path__)
