"""evaluate: roll out a trained adapter and its base on a split, and compare them."""

from collections.abc import Sequence

from pixelis.cli.arguments import ExtraFile, parse_arguments, run_cli
from pixelis.config import EvaluateConfig, ModelFileConfig


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and run the evaluation."""
    arguments = parse_arguments(
        argv,
        entry_point="evaluate",
        description="Roll out an adapter and its base: generate, run the operation, feed it back.",
        config_class=EvaluateConfig,
        default_config="configs/evaluate.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml")},
    )

    from pixelis.runs.evaluate import run_evaluation  # imports torch, which `--help` does not need

    run_evaluation(arguments.config, arguments.extra["model"].model)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
