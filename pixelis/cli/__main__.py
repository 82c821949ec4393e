"""The console script: `pixelis NAME [options]` is the same as `python -m pixelis.cli.NAME`."""

import importlib
import sys
from collections.abc import Sequence

from pixelis.cli.arguments import ENTRY_POINTS, run_cli
from pixelis.errors import ConfigError


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {entry.meaning}" for name, entry in ENTRY_POINTS.items()]
        print("\n".join(["usage: pixelis ENTRY_POINT [--help] [options]", "", *lines]))
        return 0
    name, *rest = argv
    if name not in ENTRY_POINTS:
        raise ConfigError(f"Unknown entry point {name!r}. Choices: {', '.join(ENTRY_POINTS)}")
    code: int = importlib.import_module(f"pixelis.cli.{name.replace('-', '_')}").main(rest)
    return code


def main() -> int:
    """Run the named entry point."""
    return run_cli(_dispatch, sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
