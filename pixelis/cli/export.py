"""export: merge an adapter into its base, compare, and save it for transformers and vLLM."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixelis.cli.arguments import ExtraFile, parse_arguments, run_cli
from pixelis.config import ExportConfig, ModelFileConfig, flatten
from pixelis.errors import DataError
from pixelis.files import expanded


def main(argv: Sequence[str]) -> int:
    """Parse, fetch the adapter, open the run, merge and save, record."""
    arguments = parse_arguments(
        argv,
        entry_point="export",
        description="Merge an adapter into its base and save both as one model with its processor, "
        "after comparing the logits before and after.",
        config_class=ExportConfig,
        default_config="configs/export.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml")},
    )
    config, model = arguments.config, arguments.extra["model"].model
    folder = expanded(config.output_dir)

    from pixelis.models.export import ABOUT_FILE, check_place, export_merged
    from pixelis.models.lora import check_adapter
    from pixelis.models.quiet import quiet_libraries
    from pixelis.tracking import find_run, find_version, open_run, resolve_adapter

    quiet_libraries()
    check_place(folder)
    example, where = _choose_example(Path(config.data.path))
    address = config.adapter or f"runs:/{find_run(config.experiment).run_id}"
    version = find_version(address)
    # By its number: an alias may move meanwhile.
    exact = f"models:/{version.name}/{version.version}" if version else address
    adapter = resolve_adapter(exact, config.experiment)
    check_adapter(adapter, model_name=model.model_name)
    print(f"adapter: {exact}; logits are compared on {where}", flush=True)
    with open_run(
        entry_point="export",
        experiment=config.experiment,
        run_name=f"export {config.adapter or 'newest sft'}",
        params={**flatten(config), **{f"model.{k}": v for k, v in flatten(model).items()}},
        tags={"pixelis.base_model": model.model_name, "pixelis.adapter": exact},
        system_metrics=False,
    ) as recorder:
        exported = export_merged(
            adapter,
            folder,
            example,
            model_name=model.model_name,
            source=exact,
            save_dtype=config.save_dtype,
            tolerance=config.tolerance,
            min_pixels=model.min_pixels,
            max_pixels=model.max_pixels,
            trust_remote_code=model.trust_remote_code,
        )
        names = ("merging", "reading", "rounding", "same_token")
        recorder.metrics({f"export/{name}": getattr(exported, name) for name in names}, 0)
        recorder.artifact(folder / ABOUT_FILE, "export")
        lines = _lines(asdict(exported), str(folder))
        recorder.tags({"pixelis.exported_to": str(folder)})
        recorder.note("\n\n".join(lines))
        print(*lines, recorder.url_hint(), sep="\n")
    return 0


def _choose_example(data_dir: Path) -> tuple[Any, str]:
    """What logits are compared on, and what it is called."""
    from pixelis.data.store import from_row, load_split
    from pixelis.data_prep.generate import generate_example

    if data_dir.exists():
        rows = [rows[0] for rows in load_split(data_dir, "test").values() if len(rows)]
        if not rows:
            raise DataError(f"{data_dir} has no test example to compare logits on")
        example = from_row(rows[0])
        return example, f"example {example.id} of the test split of {data_dir}"
    example = generate_example(seed=0, index=0, task="spatial_reasoning", sample_type="positive")
    return example, f"a drawn scene ({data_dir} is not there)"


def _lines(found: dict[str, Any], folder: str) -> list[str]:
    rounding = f"{found['rounding']:.2g}; the likeliest token of {found['same_token']:.1%} stays"
    return [
        f"logits of {found['num_positions']} positions, before and after merging (fp32): "
        f"at most {found['merging']:.2g} apart",
        f"saved as {found['dtype']}: weights rounded to it move a logit by at most {rounding}",
        f"read back from {folder}: at most {found['reading']:.2g} from what was saved",
        f"load it: AutoModelForImageTextToText.from_pretrained('{folder}', dtype='auto'); "
        f"here: --model.model_name {folder}",
    ]


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
