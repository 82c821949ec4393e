"""export: merge an adapter into its base, compare, and save it for transformers and vLLM."""

from collections.abc import Sequence

from pixelis.cli.arguments import parse_arguments, run_cli


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and export."""
    config, model = parse_arguments("export", argv)

    from pixelis.models.load import silence_libraries  # imports torch
    from pixelis.runs.export import run_export

    silence_libraries()
    run_export(config, model.model)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
