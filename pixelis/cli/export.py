"""export: merge an adapter into its base, compare, and save it for transformers and vLLM."""

from collections.abc import Sequence

from pixelis.cli.arguments import ExtraFile, parse_arguments, run_cli
from pixelis.config import ExportConfig, ModelFileConfig


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and export."""
    arguments = parse_arguments(
        argv,
        entry_point="export",
        description="Merge an adapter into its base and save both as one model with its processor, "
        "after comparing the logits before and after.",
        config_class=ExportConfig,
        default_config="configs/export.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml")},
    )

    from pixelis.models.load import silence_libraries  # imports torch
    from pixelis.runs.export import run_export

    silence_libraries()
    run_export(arguments.config, arguments.extra["model"].model)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
