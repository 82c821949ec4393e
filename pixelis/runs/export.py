"""One run of `export`: merge an adapter into its base, compare both, save and record."""

from pathlib import Path

from pixelis.config import ExportConfig, ModelConfig, flatten
from pixelis.data.example import Example
from pixelis.data.store import from_row, load_split
from pixelis.data_prep.generate import generate_example
from pixelis.errors import DataError
from pixelis.files import expand_home
from pixelis.models.export import REPORT_FILE, ExportReport, check_output_folder, export_merged
from pixelis.models.lora import check_adapter
from pixelis.tracking import find_run, find_version, open_run, resolve_adapter

METRICS = ("merging", "reading", "rounding", "same_token")


def run_export(config: ExportConfig, model: ModelConfig) -> None:
    """Merge an adapter into its base, and record the export in a run."""
    folder = expand_home(config.output_dir)
    check_output_folder(folder)
    example, description = choose_example(Path(config.data.path))
    address = config.adapter or f"runs:/{find_run(config.experiment).run_id}"
    version = find_version(address)
    # An alias may move to another version meanwhile: use the version's number from here on.
    source = f"models:/{version.name}/{version.version}" if version else address
    adapter = resolve_adapter(source)
    check_adapter(adapter, model_name=model.model_name)
    print(f"adapter: {source}; logits are compared on {description}", flush=True)
    with open_run(
        entry_point="export",
        experiment=config.experiment,
        run_name=f"export {config.adapter or 'newest sft'}",
        params={**flatten(config), **{f"model.{k}": v for k, v in flatten(model).items()}},
        tags={"pixelis.base_model": model.model_name, "pixelis.adapter": source},
        system_metrics=False,
    ) as recorder:
        report = export_merged(
            adapter,
            folder,
            example,
            model=model,
            source=source,
            save_dtype=config.save_dtype,
            tolerance=config.tolerance,
        )
        recorder.metrics({f"export/{name}": getattr(report, name) for name in METRICS}, 0)
        recorder.artifact(folder / REPORT_FILE, "export")
        recorder.tags({"pixelis.exported_to": str(folder)})
        lines = describe_export(report, str(folder))
        recorder.note("\n\n".join(lines))
        print(*lines, recorder.url_hint(), sep="\n")


def choose_example(data_dir: Path) -> tuple[Example, str]:
    """Return an example to compare logits on, and its description.

    It comes from the test split, or is drawn if there is no data folder.

    Raises:
        DataError: when the data folder has no test example.
    """
    if not data_dir.exists():
        example = generate_example(
            seed=0, index=0, task="spatial_reasoning", sample_type="positive"
        )
        return example, f"a drawn scene ({data_dir} is not there)"
    rows = [rows[0] for rows in load_split(data_dir, "test").values() if len(rows)]
    if not rows:
        raise DataError(f"{data_dir} has no test example to compare logits on")
    example = from_row(rows[0])
    return example, f"example {example.id} of the test split of {data_dir}"


def describe_export(report: ExportReport, folder: str) -> list[str]:
    """Return the lines about an export for the console and the run's note."""
    rounding = f"{report.rounding:.2g}; the likeliest token of {report.same_token:.1%} stays"
    return [
        f"logits of {report.num_positions} positions, before and after merging (fp32): "
        f"at most {report.merging:.2g} apart",
        f"saved as {report.dtype}: weights rounded to it move a logit by at most {rounding}",
        f"read back from {folder}: at most {report.reading:.2g} from what was saved",
        f"load it: AutoModelForImageTextToText.from_pretrained('{folder}', dtype='auto'); "
        f"here: --model.model_name {folder}",
    ]
