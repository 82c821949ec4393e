"""The console script: `pixelis NAME [options]` is the same as `python -m pixelis.cli.NAME`."""

import importlib
import os
import sys
from collections.abc import Sequence

from pixelis.cli.arguments import ENTRY_POINTS, run_cli
from pixelis.cli.console import HELP
from pixelis.config import suggest
from pixelis.errors import ConfigError

COMPLETE = "_PIXELIS_COMPLETE"  # set by a shell that asks for the words at its cursor


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {entry.meaning}" for name, entry in ENTRY_POINTS.items()]
        usage = "usage: pixelis ENTRY_POINT [--help] [options]"
        print("\n".join([usage, "", *lines, "", HELP]))
        return 0
    name, *rest = argv
    if name not in ENTRY_POINTS:
        choices = ", ".join(ENTRY_POINTS)
        raise ConfigError(
            f"Unknown entry point {name!r}{suggest(name, ENTRY_POINTS)}. Choices: {choices}"
        )
    code: int = importlib.import_module(f"pixelis.cli.{name.replace('-', '_')}").main(rest)
    return code


def main() -> int:
    """Run the named entry point, or answer a shell's request for completion."""
    if instruction := os.environ.get(COMPLETE):
        from pixelis.cli.completion import complete

        return complete(COMPLETE, instruction)
    return run_cli(_dispatch, sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
