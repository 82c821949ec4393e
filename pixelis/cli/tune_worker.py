"""tune_worker: run trials of a search until all are finished; `tune` starts the workers."""

from collections.abc import Sequence

from pixelis.cli.arguments import ExtraFile, parse_arguments, run_cli
from pixelis.config import ModelFileConfig, TuneFileConfig


def main(argv: Sequence[str]) -> int:
    """Parse the arguments of `tune`, and run trials."""
    arguments = parse_arguments(
        argv,
        entry_point="tune",
        description="One worker of a search.",
        config_class=TuneFileConfig,
        default_config="configs/tune.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml")},
    )

    from pixelis.experiments.tune.spec import SearchSpec
    from pixelis.runs.tuning_worker import run_worker

    run_worker(SearchSpec(arguments.config, arguments.extra["model"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
