"""tune_worker: run trials of a search until none is left; `tune` starts one a worker."""

from collections.abc import Sequence

from pixelis.cli.arguments import INTERRUPTED, ExtraFile, parse_arguments, run_cli
from pixelis.config import ModelFileConfig, TuneFileConfig


def main(argv: Sequence[str]) -> int:
    """Parse what `tune` parsed, and run trials."""
    arguments = parse_arguments(
        argv,
        entry_point="tune",
        description="One worker of a search.",
        config_class=TuneFileConfig,
        default_config="configs/tune.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml")},
    )

    from pixelis.experiments.tune import Plan, TrialStopped
    from pixelis.runs.tuning_worker import run_worker

    try:
        run_worker(Plan(arguments.config, arguments.extra["model"]))
    except TrialStopped:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
