"""Inputs of a run: the data that it reads, and links to its parent and the data's run."""

from collections.abc import Mapping
from pathlib import Path

from pixelis.data.store import data_files
from pixelis.tracking import MlflowRecorder, data_tag, find_data_run


def record_inputs(
    recorder: MlflowRecorder, folder: Path, digests: dict[str, str], *, context: str
) -> None:
    """Record the parquet files of a data folder as inputs of a run."""
    for path in data_files(folder):
        recorder.dataset(path, name=path.stem, context=context, digest=digests[path.name])


def record_split(
    recorder: MlflowRecorder,
    folder: Path,
    digests: Mapping[str, str],
    split: str,
    context: str = "",
) -> tuple[str, str]:
    """Record one split of all files as an input of a run; return its name and digest.

    `context` says what it is used for, by default the split's name.
    """
    name, digest = f"cota_{split}", data_tag(digests)
    recorder.dataset(folder, name=name, context=context or split, digest=digest, split=split)
    return name, digest


def record_validation(
    recorder: MlflowRecorder, folder: Path, digests: Mapping[str, str], trusted: Path | None
) -> None:
    """Record the validation split and `data.trusted`, which strata are measured on if there is one.

    The context of that input is `validation`; the validation split is then `untrusted`.
    """
    context = "validation" if trusted is None else "untrusted"
    record_split(recorder, folder, digests, "validation", context)
    if trusted is not None:
        from pixelis.training.inputs import trusted_digests  # imports torch

        digest = data_tag(trusted_digests(trusted))
        recorder.dataset(trusted, name="trusted", context="validation", digest=digest)


def link_parent(recorder: MlflowRecorder) -> str:
    """Return a line with a link to a run's parent, for its description; empty without a parent."""
    parent_id = recorder.parent_id
    if parent_id is None:
        return ""
    parent = recorder.attempt(
        "looking for the run above", lambda: recorder.client.get_run(parent_id)
    )
    name = parent.info.run_name if parent else parent_id
    address = f"#/experiments/{recorder.experiment_id}/runs/{parent_id}"
    return f"Part of [{name}]({address}) (`{parent_id}`)."


def link_data_run(recorder: MlflowRecorder, digests: Mapping[str, str]) -> str:
    """Tag a run with the data-prep run that made its data; return a line for its description."""
    made_by = recorder.attempt("looking for the data's run", lambda: find_data_run(digests))
    if made_by is None:
        return "Data: made by no run of this store."
    recorder.tags({"pixelis.data_run": made_by.run_id})
    address = f"#/experiments/{made_by.experiment_id}/runs/{made_by.run_id}"
    return f"Data: made by [{made_by.name}]({address}) (`{made_by.run_id}`)."
