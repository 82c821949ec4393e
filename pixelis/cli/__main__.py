"""The console script: `pixelis NAME [options]` is the same as `python -m pixelis.cli.NAME`."""

import importlib
import sys
from collections.abc import Sequence

from pixelis.cli.arguments import run_cli
from pixelis.errors import ConfigError

ENTRY_POINTS = {
    "data-prep": "make CoTA data",
    "sft": "fine-tune on a curriculum, then evaluate",
    "evaluate": "roll a trained adapter out on the test split",
    "export": "merge an adapter into its base, for transformers and vLLM",
    "ablate": "the same budget for a uniform mix and several curricula, over seeds",
    "tune": "search a curriculum's settings with Optuna, judge the best on fresh seeds",
    "plan": "what a training would take: memory by part, steps, hours; without weights",
    "compare": "timelines and outcomes of finished trainings, side by side",
    "sync": "deliver to MLflow what waits on disk because it was away",
    "init": "copy the configuration files here, for editing",
}


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {meaning}" for name, meaning in ENTRY_POINTS.items()]
        print("\n".join(["usage: pixelis ENTRY_POINT [--help] [options]", "", *lines]))
        return 0
    name, *rest = argv
    if name not in ENTRY_POINTS:
        raise ConfigError(f"Unknown entry point {name!r}. Choices: {', '.join(ENTRY_POINTS)}")
    module = importlib.import_module(f"pixelis.cli.{name.replace('-', '_')}")
    code: int = module.main(rest)
    return code


def main() -> int:
    """Run the named entry point."""
    return run_cli(_dispatch, sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
