"""What a recorder leaves in its run."""

import json
import threading
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from pyarrow import parquet

from pixelis.tracking.recorder import MlflowRecorder


@pytest.fixture
def recorder(client, tmp_path):
    return MlflowRecorder(client, client.create_run("0", run_name="r"))


def event(step, kind, **fields):
    return {"step": step, "kind": kind, "rollback_count": 0, "interval": 500, **fields}


def test_a_key_takes_a_step_once(recorder, history):
    for step, value in [(1, 1.0), (2, 2.0), (2, 9.0), (1, 9.0), (3, 3.0)]:
        recorder.metrics({"train/loss": value}, step)
    recorder.summary({"final": 0.5})
    recorder.summary({"final": 0.9})
    recorder.flush()
    assert history(recorder.run_id, "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert history(recorder.run_id, "summary/final") == [(0, 0.5)]


def test_values_that_are_not_finite_are_left_out_with_one_warning(recorder, history, caplog):
    recorder.metrics({"train/loss": float("nan"), "train/lr": 0.1}, 1)
    recorder.metrics({"train/loss": float("inf")}, 2)
    recorder.metrics({"train/loss": 1.0}, 3)
    recorder.flush()
    assert history(recorder.run_id, "train/loss") == [(3, 1.0)]
    assert history(recorder.run_id, "train/lr") == [(1, 0.1)]
    assert caplog.text.count("train/loss is nan at step 1") == 1


def test_events_become_metrics_and_one_table(recorder, history, artifact):
    mix = {"simple": 0.4, "medium": 0.4, "hard": 0.2}
    scores = {"perf_before": 0.9, "perf_after": 0.82, "delta": -0.08, "average": 0.82}
    events = [
        event(0, "start", mix={"simple": 1.0}),
        event(500, "rollback", mix={"simple": 1.0}, **scores | {"rollback_count": 1}),
        event(500, "hold", rollback_count=1),
        event(850, "extend", progress=0.02, forgetting=-0.01),
        event(900, "advance", mix=mix, **scores, progress=0.03, forgetting=0.0),
    ]
    for each in events:
        recorder.event(each)
    recorder.flush()
    expected = {
        "event": [(500, -1.0), (900, 1.0)],
        "performance_before": [(500, 0.9), (900, 0.9)],
        "performance_after": [(500, 0.82), (900, 0.82)],
        "performance_drop": [(500, -0.08), (900, -0.08)],
        "rollback_count": [(0, 0.0), (500, 1.0), (850, 0.0), (900, 0.0)],
        "mix/simple": [(0, 1.0), (500, 1.0), (900, 0.4)],
        "mix/medium": [(900, 0.4)],
        "mix/hard": [(900, 0.2)],
    }
    keys = recorder.client.get_run(recorder.run_id).data.metrics
    names = [key.removeprefix("curriculum/") for key in keys]
    assert {name: history(recorder.run_id, f"curriculum/{name}") for name in names} == expected
    assert json.loads(artifact(recorder.run_id, "curriculum/events.json")) == events


def test_params_come_in_chunks_and_never_over_what_is_there(recorder):
    recorder.params({f"section.key{n}": n for n in range(250)})
    recorder.params({"section.key0": 99, "long": "x" * 7000})
    assert recorder.flush()
    params = recorder.client.get_run(recorder.run_id).data.params
    assert len(params) == 251
    assert params["section.key0"] == "0"
    assert len(params["long"]) == 6000
    assert params["long"].endswith("x ... [cut: 7000 characters]")


def test_files_figures_tables_and_texts_are_artifacts(recorder, artifact, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    (tmp_path / "b.yaml").write_text("b: 1\n")
    figure = Figure()
    figure.subplots().plot([1, 2])
    recorder.artifact(tmp_path / "folder", "kept/folder")
    recorder.artifact(tmp_path / "b.yaml")
    recorder.figure("curriculum/timeline.png", figure)
    recorder.text("old", "notes/a.md")
    recorder.text("new", "notes/a.md")
    recorder.table([{"task": "count", "base": 0.1}, {"task": "spatial", "adapter": 0.9}], "t.json")
    recorder.note("# Look")
    recorder.close("FINISHED")
    assert artifact(recorder.run_id, "kept/folder/a.txt") == "a"
    assert artifact(recorder.run_id, "b.yaml") == "b: 1\n"
    assert artifact(recorder.run_id, "notes/a.md") == "new"
    png = mlflow.artifacts.download_artifacts(
        run_id=recorder.run_id, artifact_path="curriculum/timeline.png"
    )
    assert Path(png).read_bytes().startswith(b"\x89PNG")
    table = json.loads(artifact(recorder.run_id, "t.json"))
    assert table["columns"] == ["task", "base", "adapter"]
    assert table["data"] == [["count", 0.1, None], ["spatial", None, 0.9]]
    run = recorder.client.get_run(recorder.run_id)
    assert run.data.tags["mlflow.note.content"] == "# Look"
    assert run.info.status == "FINISHED"


def test_a_dataset_has_our_digest_and_the_number_of_rows(recorder, tmp_path):
    images = [[{"bytes": b"png", "path": "a"}]]
    path = tmp_path / "cota_simple.parquet"
    parquet.write_table(pa.table({"id": ["a"] * 3, "n": [1, 2, 3], "images": images * 3}), path)
    recorder.dataset(path, name="cota_simple", context="training", digest="5" * 64)
    recorder.flush()
    (found,) = recorder.client.get_run(recorder.run_id).inputs.dataset_inputs
    assert found.dataset.name == "cota_simple"
    assert found.dataset.digest == "5" * 36
    assert json.loads(found.dataset.profile) == {"num_rows": 3}
    assert json.loads(found.dataset.source) == {"uri": "cota_simple.parquet"}
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    schema = json.loads(found.dataset.schema)["mlflow_colspec"]
    assert [(c["name"], c["type"]) for c in schema] == [
        ("id", "string"),
        ("n", "long"),
        ("images", "array"),
    ]
    assert schema[2]["items"]["properties"]["bytes"]["type"] == "binary"


def test_the_digest_of_a_file_changes_with_its_last_row(recorder, tmp_path):
    for last in ("x", "y"):
        parquet.write_table(pa.table({"id": ["a"] * 2000 + [last]}), tmp_path / f"{last}.parquet")
        recorder.dataset(tmp_path / f"{last}.parquet", name="d", context="training")
    recorder.flush()
    found = recorder.client.get_run(recorder.run_id).inputs.dataset_inputs
    digests = {each.dataset.digest for each in found}
    assert len(digests) == 2
    assert {len(digest) for digest in digests} == {36}


def test_the_hint_says_where_to_look_and_hides_passwords(recorder):
    page = f"#/experiments/0/runs/{recorder.run_id}?workflowType=machine_learning"
    assert recorder.url_hint() == (
        f"MLflow run 'r' ({recorder.run_id}); look at it with: make ui, then "
        f"http://127.0.0.1:5000/{page}"
    )
    run = recorder.client.get_run(recorder.run_id)
    there = MlflowRecorder(
        MlflowClient("http://me:secret@host:5000"), run, output_dir=Path("other")
    ).url_hint()
    assert there.endswith(f"look at it with: http://host:5000/{page}")


def test_a_table_that_comes_again_is_not_appended(recorder, artifact):
    recorder.table([{"task": "count", "right": 1}], "evaluation/t.json")
    recorder.table([{"task": "count", "right": 1}, {"task": "é"}], "evaluation/t.json")
    recorder.flush()
    table = json.loads(artifact(recorder.run_id, "evaluation/t.json"))
    assert table == {"columns": ["task", "right"], "data": [["count", 1], ["é", None]]}
    frame = mlflow.load_table("evaluation/t.json", run_ids=[recorder.run_id])
    assert frame["task"].tolist() == ["count", "é"]


def test_what_is_asked_of_a_server_that_hangs_is_given_up(recorder, monkeypatch, caplog):
    monkeypatch.setattr("pixelis.tracking.recorder.ATTEMPT_SECONDS", 0.1)
    never = threading.Event()
    assert recorder.attempt("asking", never.wait) is None
    never.set()
    assert "asking failed (TimeoutError: no answer within 0.1 s)" in caplog.text
