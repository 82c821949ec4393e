"""Data that is missing is made once, whoever asks, in a run that later runs point to."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from PIL import Image

from pixelis.config import DataPrepConfig, DifficultyConfig
from pixelis.errors import ConfigError
from pixelis.runs import prepare
from pixelis.runs.inputs import link_data_run
from pixelis.runs.missing_data import is_missing, unrecorded_mark
from pixelis.runs.prepare import make_data
from pixelis.tracking import find_data_run, open_run

pytestmark = pytest.mark.integration
CONFIG = DataPrepConfig(
    num_samples=40,
    num_workers=1,
    tasks=("attribute_recognition",),
    difficulty=DifficultyConfig(correlation_samples=0),
)


def test_two_that_need_the_same_folder_make_it_once(tmp_path, workdir, capsys):
    make = partial(make_data, CONFIG, tmp_path / "deep" / "data", missing_from="prep.yaml")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(make), pool.submit(make)
        results = [first.result(), second.result()]
    (summary,) = [result for result in results if result is not None]
    assert summary["num_samples"] == 40
    assert capsys.readouterr().out.count("40 examples in ") == 1


def test_data_whose_run_was_killed_before_it_told_is_recorded_later(
    workdir, runs, caplog, monkeypatch
):
    out = workdir / "data"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare, "record_data", killed)
        make_data(CONFIG, out)
    assert [run.info.status for run in runs()] == ["KILLED"] and is_missing(out)
    before = (out / "summary.json").stat().st_mtime_ns
    caplog.set_level("INFO", logger="pixelis")
    assert make_data(CONFIG, out, missing_from="prep.yaml") is None
    assert "was made by a run that was killed before it told of it" in caplog.text
    assert (out / "summary.json").stat().st_mtime_ns == before and not is_missing(out)

    digests = json.loads((out / "summary.json").read_text())["sha256"]
    found = find_data_run(digests)
    (told,) = [run for run in runs() if run.info.status == "FINISHED"]
    assert found.run_id == told.info.run_id
    assert len(told.inputs.dataset_inputs) == len(digests)
    assert told.data.metrics["summary/num_samples"] == 40

    # Killed after its last word: there is nothing left to tell.
    unrecorded_mark(out).touch()
    make_data(CONFIG, out, missing_from="prep.yaml")
    assert len(runs()) == 2 and not is_missing(out)


def test_data_whose_replacement_was_killed_are_restored(workdir):
    out = workdir / "data"
    make_data(CONFIG, out)
    out.rename(workdir / ".data.1.old")  # the first of the two renames
    unrecorded_mark(out).touch()
    assert make_data(CONFIG, out, missing_from="prep.yaml") is None
    assert (out / "summary.json").is_file() and not is_missing(out)


def opened(entry_point="sft"):
    return open_run(
        entry_point=entry_point,
        experiment="sft_curriculum",
        run_name="training",
        params={},
        tags={},
        system_metrics=False,
    )


def test_asked_for_by_name_it_is_made_again_and_a_run_points_to_the_newer_run(workdir, client):
    first = make_data(CONFIG, workdir / "data")
    written = (workdir / "data" / "summary.json").stat().st_mtime_ns
    summary = make_data(CONFIG, workdir / "data")
    assert (workdir / "data" / "summary.json").stat().st_mtime_ns > written
    assert summary["sha256"] == first["sha256"]
    with opened() as recorder:
        line = link_data_run(recorder, summary["sha256"])
    run = client.get_run(recorder.run_id)
    made_by = client.get_run(run.data.tags["pixelis.data_run"])
    made = client.search_runs([made_by.info.experiment_id])
    assert made_by.info.start_time == max(each.info.start_time for each in made) and len(made) == 2
    assert made_by.data.tags["pixelis.entry_point"] == "data-prep"
    assert client.get_experiment(made_by.info.experiment_id).name == "data_prep"
    assert line == (
        f"Data: made by [{made_by.info.run_name}](#/experiments/{made_by.info.experiment_id}/runs/"
        f"{made_by.info.run_id}) (`{made_by.info.run_id}`)."
    )


def test_data_from_elsewhere_has_no_run(workdir, client):
    with opened() as recorder:
        line = link_data_run(recorder, {"cota_simple.parquet": "0" * 64})
    assert line == "Data: made by no run of this store."
    assert "pixelis.data_run" not in client.get_run(recorder.run_id).data.tags


def test_the_run_holds_counts_summary_figures_and_a_table_of_images(workdir, runs, client):
    summary = make_data(CONFIG, workdir / "data")
    (run,) = runs()
    counts = summary["by_split_and_difficulty"]
    for key, count in counts.items():
        assert run.data.metrics[f"summary/examples/{key}"] == count
    assert run.data.metrics["summary/num_samples"] == 40
    assert run.data.metrics["summary/task/attribute_recognition"] == 40
    assert run.data.metrics["summary/sample_type/self_correction"] == 4
    kept = {file.path for file in client.list_artifacts(run.info.run_id, "data")}
    assert kept == {
        f"data/{name}"
        for name in ("summary.json", "difficulty.png", "examples.png", "examples.json")
    }
    table = client.load_table(
        run.info.experiment_id, "data/examples.json", run_ids=[run.info.run_id]
    )
    assert len(table) == 24 and set(table["difficulty"]) == {"simple", "medium", "hard"}
    assert all(image["type"] == "image" for image in table["image"])
    pictures = client.list_artifacts(run.info.run_id, "table_images/data/examples")
    assert {image["filepath"] for image in table["image"]} <= {file.path for file in pictures}
    assert all("GET_PROPERTIES" in said for said in table["trajectory"])
    assert "examples" in run.data.tags["mlflow.note.content"]


def test_on_the_way_to_another_run_it_leaves_that_run_alone(workdir, client, monkeypatch):
    home = client.create_experiment("theirs")
    opened_by_mlflow = client.create_run(home)
    monkeypatch.setenv("MLFLOW_RUN_ID", opened_by_mlflow.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", home)
    make_data(CONFIG, workdir / "data", missing_from="prep.yaml")
    assert os.environ["MLFLOW_RUN_ID"] == opened_by_mlflow.info.run_id
    assert os.environ["MLFLOW_EXPERIMENT_ID"] == home
    run = client.get_run(opened_by_mlflow.info.run_id)
    assert run.info.status == "RUNNING" and not run.data.params
    data_prep = client.get_experiment_by_name("data_prep")
    (made_by,) = client.search_runs([data_prep.experiment_id])
    assert made_by.info.status == "FINISHED"


def test_a_task_that_is_not_known_is_refused_before_a_run_is_opened(workdir, runs):
    with pytest.raises(ConfigError, match="tasks must be among attribute_recognition, .* got 'x'"):
        make_data(CONFIG.replace(tasks=("x",)), workdir / "data")
    assert runs() == []


@pytest.mark.parametrize("is_known", [True, False])
def test_an_imported_image_is_rejected_where_the_base_that_refuses_it_is_known(workdir, is_known):
    for number in range(12):
        size = (900, 4) if number == 5 else (60, 40 + number)
        Image.new("RGB", size).save(workdir / f"{number}.png")
    fields = {"question": "What?", "answer": "a", "conclusion": "So."}
    lines = [json.dumps(fields | {"image": f"{n}.png"}) for n in range(12)]
    (workdir / "mine.jsonl").write_text("\n".join(lines))
    config = DataPrepConfig(
        input="mine.jsonl",
        num_workers=1,
        max_rejected=0.2,
        difficulty=DifficultyConfig(correlation_samples=2 if is_known else 0),
    )
    summary = make_data(config, workdir / "data")
    assert summary["rejected"] == ({"unreadable_image": 1} if is_known else {})
    if is_known:
        (rejection,) = (workdir / "data" / "rejected.jsonl").read_text().splitlines()
        found = json.loads(rejection)
        assert (found["file"], found["line"]) == ("mine.jsonl", 6)
        assert "refuses an image of 900 x 4 pixels: absolute aspect ratio" in found["detail"]
