"""What the recorder writes, and what happens when MLflow does not take it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
import requests
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pyarrow import parquet

from pixelis.recorder import Recorder
from pixelis.tracking.recorder import MlflowRecorder


@pytest.fixture
def recorder(client: MlflowClient, tmp_path: Path) -> MlflowRecorder:
    return MlflowRecorder(
        client, client.create_run("0", run_name="r"), spool_dir=tmp_path / "spool"
    )


@pytest.fixture
def outage(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """While its one item is true, no call that writes reaches the store."""
    away = [False]
    for name in ("log_batch", "log_artifact", "log_artifacts", "set_terminated", "log_inputs"):
        real = getattr(client, name)

        def call(*args: Any, _real: Any = real, **kwargs: Any) -> Any:
            if away[0]:
                raise ConnectionError("connection refused")
            return _real(*args, **kwargs)

        monkeypatch.setattr(client, name, call)
    yield away


def history(recorder: MlflowRecorder, key: str) -> list[tuple[int, float]]:
    recorder.flush()
    return [(m.step, m.value) for m in recorder.client.get_metric_history(recorder.run_id, key)]


def artifact(recorder: MlflowRecorder, name: str) -> str:
    recorder.flush()
    path = mlflow.artifacts.download_artifacts(run_id=recorder.run_id, artifact_path=name)
    return Path(path).read_text()


def event(step: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"step": step, "kind": kind, "rollback_count": 0, "interval": 500, **fields}


def test_it_is_a_recorder(recorder: MlflowRecorder) -> None:
    protocol: Recorder = recorder
    protocol.metrics({"train/loss": 1.0}, 1)
    assert recorder.flush()
    assert history(recorder, "train/loss") == [(1, 1.0)]


def test_metrics_go_in_chunks(recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = recorder.client.log_batch

    def log_batch(run_id: str, metrics: Any = (), **kwargs: Any) -> None:
        sizes.append(len(metrics))
        real(run_id, metrics=metrics, **kwargs)

    monkeypatch.setattr(recorder.client, "log_batch", log_batch)
    for step in range(500):
        recorder.metrics({"train/loss": 0.5}, step)
    recorder.flush()
    assert sizes == [500]
    recorder.metrics({f"k{n}": 1.0 for n in range(2300)}, 501)
    recorder.flush()
    assert sizes == [500, 1000, 1000, 300]


def test_a_key_takes_a_step_once(recorder: MlflowRecorder) -> None:
    for step, value in [(1, 1.0), (2, 2.0), (2, 9.0), (1, 9.0), (3, 3.0)]:
        recorder.metrics({"train/loss": value}, step)
    recorder.summary({"final": 0.5})
    recorder.summary({"final": 0.9})
    recorder.flush()
    assert history(recorder, "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert history(recorder, "summary/final") == [(0, 0.5)]


def test_values_that_are_not_finite_are_left_out_with_one_warning(
    recorder: MlflowRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.metrics({"train/loss": float("nan"), "train/lr": 0.1}, 1)
    recorder.metrics({"train/loss": float("inf")}, 2)
    recorder.metrics({"train/loss": 1.0}, 3)
    recorder.flush()
    assert history(recorder, "train/loss") == [(3, 1.0)]
    assert history(recorder, "train/lr") == [(1, 0.1)]
    assert capsys.readouterr().err.count("train/loss is nan at step 1") == 1


def test_events_become_metrics_and_one_table(recorder: MlflowRecorder) -> None:
    mix = {"simple": 0.4, "medium": 0.4, "hard": 0.2}
    scores = {"perf_before": 0.9, "perf_after": 0.82, "delta": -0.08, "average": 0.82}
    events = [
        event(0, "start", mix={"simple": 1.0}),
        event(500, "rollback", mix={"simple": 1.0}, **scores | {"rollback_count": 1}),
        event(500, "hold", rollback_count=1),
        event(900, "advance", mix=mix, **scores),
    ]
    for each in events:
        recorder.event(each)
    assert history(recorder, "curriculum/event") == [(500, -1.0), (900, 1.0)]
    assert history(recorder, "curriculum/performance_before") == [(500, 0.9), (900, 0.9)]
    assert history(recorder, "curriculum/performance_after") == [(500, 0.82), (900, 0.82)]
    assert history(recorder, "curriculum/performance_drop") == [(500, -0.08), (900, -0.08)]
    assert history(recorder, "curriculum/average_performance") == [(500, 0.82), (900, 0.82)]
    assert history(recorder, "curriculum/rollback_count") == [(0, 0.0), (500, 1.0), (900, 0.0)]
    assert history(recorder, "curriculum/interval") == [(0, 500.0), (500, 500.0), (900, 500.0)]
    assert history(recorder, "curriculum/mix/hard") == [(900, 0.2)]
    assert json.loads(artifact(recorder, "curriculum/events.json")) == events


def test_restored_events_are_in_the_table_once_and_log_no_metric(
    recorder: MlflowRecorder, client: MlflowClient
) -> None:
    old, new = event(500, "rollback", delta=-0.1), event(900, "advance", delta=0.0)
    recorder.event(old)
    recorder.event(event(700, "advance", delta=0.0))  # after the checkpoint: will come again
    run = client.get_run(recorder.run_id)
    recorder.flush()
    resumed = MlflowRecorder(client, run, resumed=True, spool_dir=recorder.spool_dir)
    resumed.restore_events([old])
    resumed.event(event(700, "advance", delta=0.0))
    resumed.event(new)
    resumed.flush()
    table = json.loads(artifact(recorder, "curriculum/events.json"))
    assert [each["step"] for each in table] == [500, 700, 900]
    assert history(recorder, "curriculum/event") == [(500, -1.0), (700, 1.0), (900, 1.0)]


def test_a_resumed_run_that_ends_without_an_event_has_the_restored_table(
    recorder: MlflowRecorder,
) -> None:
    recorder.restore_events([event(500, "rollback")])
    recorder.close("FINISHED")
    assert json.loads(artifact(recorder, "curriculum/events.json")) == [event(500, "rollback")]


def test_params_come_in_chunks_and_never_over_what_is_there(recorder: MlflowRecorder) -> None:
    recorder.params({f"section.key{n}": n for n in range(250)})
    recorder.params({"section.key0": 99, "long": "x" * 7000})
    assert recorder.flush()
    params = recorder.client.get_run(recorder.run_id).data.params
    assert len(params) == 251
    assert params["section.key0"] == "0"
    assert len(params["long"]) == 6000
    assert params["long"].endswith("x ... [cut: 7000 characters]")


def test_files_figures_tables_and_texts_are_artifacts(
    recorder: MlflowRecorder, tmp_path: Path
) -> None:
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
    assert artifact(recorder, "kept/folder/a.txt") == "a"
    assert artifact(recorder, "b.yaml") == "b: 1\n"
    assert artifact(recorder, "notes/a.md") == "new"
    png = mlflow.artifacts.download_artifacts(
        run_id=recorder.run_id, artifact_path="curriculum/timeline.png"
    )
    assert Path(png).read_bytes().startswith(b"\x89PNG")
    table = json.loads(artifact(recorder, "t.json"))
    assert table["columns"] == ["task", "base", "adapter"]
    assert table["data"] == [["count", 0.1, None], ["spatial", None, 0.9]]
    run = recorder.client.get_run(recorder.run_id)
    assert run.data.tags["mlflow.note.content"] == "# Look"
    assert run.info.status == "FINISHED"


def test_a_dataset_has_our_digest_and_the_number_of_rows(
    recorder: MlflowRecorder, tmp_path: Path
) -> None:
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


def test_the_digest_of_a_file_changes_with_its_last_row(
    recorder: MlflowRecorder, tmp_path: Path
) -> None:
    for last in ("x", "y"):
        parquet.write_table(pa.table({"id": ["a"] * 2000 + [last]}), tmp_path / f"{last}.parquet")
        recorder.dataset(tmp_path / f"{last}.parquet", name="d", context="training")
    recorder.flush()
    found = recorder.client.get_run(recorder.run_id).inputs.dataset_inputs
    digests = {each.dataset.digest for each in found}
    assert len(digests) == 2
    assert {len(digest) for digest in digests} == {36}


def test_an_outage_keeps_everything_and_delivers_it_in_order(
    recorder: MlflowRecorder, outage: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.metrics({"train/loss": 0.0}, 0)
    assert recorder.flush()
    outage[0] = True
    for step in range(1, 1203):
        recorder.metrics({"train/loss": float(step)}, step)
    recorder.event(event(1202, "advance"))
    recorder.tags({"told": "late"})
    assert not recorder.flush()
    warned = capsys.readouterr().err
    assert warned.count("warning") == 1
    assert "connection refused" in warned
    outage[0] = False
    assert recorder.flush()
    assert history(recorder, "train/loss") == [(n, float(n)) for n in range(1203)]
    assert history(recorder, "curriculum/event") == [(1202, 1.0)]
    assert recorder.client.get_run(recorder.run_id).data.tags["told"] == "late"
    assert "answers again" in capsys.readouterr().err
    recorder.close("FINISHED")
    assert list(recorder.spool_dir.glob("*")) == []  # if it was needed at all


def test_a_batch_whose_answer_was_lost_is_not_logged_twice(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = recorder.client.log_batch
    answers = iter([ConnectionError("reset by peer"), None])

    def log_batch(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        if error := next(answers):
            raise error

    monkeypatch.setattr(recorder.client, "log_batch", log_batch)
    recorder.metrics({"train/loss": 1.0, "train/lr": 0.1}, 1)
    assert not recorder.flush()
    assert recorder.flush()
    assert history(recorder, "train/loss") == [(1, 1.0)]


def test_what_mlflow_did_not_take_until_the_end_is_in_a_file(
    recorder: MlflowRecorder, outage: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    outage[0] = True
    recorder.metrics({"train/loss": 1.5}, 3)
    recorder.text("# draft", "card.md")  # written over before it could be sent: not worth sending
    recorder.text("# card", "card.md")
    recorder.close("FINISHED")
    path = recorder.spool_dir / f"pixelis-undelivered-{recorder.run_id}.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["kind"], r["name"], r["value"], r["step"]) for r in records] == [
        ("metric", "train/loss", 1.5, 3),
        ("text", "card.md", "# card", 0),
        ("status", "status", "FINISHED", 0),
    ]
    assert records[0]["timestamp"] > 1.6e12
    assert str(path) in capsys.readouterr().err


def test_a_record_that_mlflow_refuses_does_not_hold_up_the_others(
    recorder: MlflowRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.metrics({"good": 1.0, "acc@1": 1.0, "also/good": 2.0}, 1)
    recorder.artifact(recorder.spool_dir / "never-was.txt", "files")
    recorder.tags({"after": "yes"})
    assert recorder.flush()
    run = recorder.client.get_run(recorder.run_id)
    assert run.data.metrics == {"good": 1.0, "also/good": 2.0}
    assert run.data.tags["after"] == "yes"
    warned = capsys.readouterr().err
    assert "refuses metric 'acc@1'" in warned
    assert "never-was.txt is not there any more" in warned
    recorder.close("FINISHED")
    path = recorder.spool_dir / f"pixelis-refused-{recorder.run_id}.jsonl"
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == [
        "acc@1",
        "files",
    ]
    assert list(recorder.spool_dir.iterdir()) == [path]


def test_an_outage_in_the_middle_of_a_refused_batch_loses_nothing(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = recorder.client.log_batch, []

    def log_batch(run_id: str, metrics: Any = (), **kwargs: Any) -> None:
        calls.append(len(metrics))
        if len(calls) == 3:
            raise MlflowException("the server is starting")
        real(run_id, metrics=metrics, **kwargs)

    monkeypatch.setattr(recorder.client, "log_batch", log_batch)
    recorder.metrics({"a": 1.0, "b": 2.0, "c@": 3.0, "d": 4.0}, 1)
    assert not recorder.flush()
    assert recorder.flush()
    assert calls == [4, 1, 1, 1, 1, 1]
    assert recorder.client.get_run(recorder.run_id).data.metrics == {"a": 1.0, "b": 2.0, "d": 4.0}


def test_the_hint_says_where_to_look_and_hides_passwords(recorder: MlflowRecorder) -> None:
    assert recorder.url_hint() == f"MLflow run 'r' ({recorder.run_id}); look at it with: make ui"
    run = recorder.client.get_run(recorder.run_id)
    there = MlflowRecorder(MlflowClient("http://me:secret@host:5000"), run).url_hint()
    assert there.endswith(
        f"look at it with: http://host:5000/#/experiments/0/runs/{run.info.run_id}"
    )


def test_a_new_run_for_a_resumed_training_has_the_metrics_of_the_earlier_events(
    recorder: MlflowRecorder,
) -> None:
    recorder.restore_events([event(500, "rollback", delta=-0.1)])
    recorder.event(event(900, "advance", delta=0.0))
    assert history(recorder, "curriculum/event") == [(500, -1.0), (900, 1.0)]
    assert history(recorder, "curriculum/performance_drop") == [(500, -0.1), (900, 0.0)]


def test_a_table_that_comes_again_is_not_appended(recorder: MlflowRecorder) -> None:
    recorder.table([{"task": "count", "right": 1}], "evaluation/t.json")
    recorder.table([{"task": "count", "right": 1}, {"task": "é"}], "evaluation/t.json")
    recorder.flush()
    table = json.loads(artifact(recorder, "evaluation/t.json"))
    assert table == {"columns": ["task", "right"], "data": [["count", 1], ["é", None]]}
    frame = mlflow.load_table("evaluation/t.json", run_ids=[recorder.run_id])
    assert frame["task"].tolist() == ["count", "é"]


def test_a_file_that_is_never_taken_holds_up_no_number_and_not_the_end(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where the client may not write to the folder of artifacts, and no proxy does it for it."""
    real = recorder.client.log_artifact

    def refuse(run_id: str, path: str, folder: str | None = None) -> None:
        if path.endswith("closed.txt"):
            raise PermissionError(13, "Permission denied", path)
        real(run_id, path, folder)

    monkeypatch.setattr(recorder.client, "log_artifact", refuse)
    recorder.text("first", "closed.txt")
    recorder.metrics({"train/loss": 1.0}, 1)
    assert not recorder.flush()
    recorder.text("newer", "closed.txt")
    recorder.text("other", "open.txt")
    recorder.metrics({"train/loss": 0.5}, 2)
    recorder.close("FINISHED")
    run = recorder.client.get_run(recorder.run_id)
    assert (run.info.status, run.data.metrics["train/loss"]) == ("FINISHED", 0.5)
    assert [a.path for a in recorder.client.list_artifacts(recorder.run_id)] == ["open.txt"]
    assert "Permission denied" in capfd.readouterr().err
    (spool,) = recorder.spool_dir.glob("pixelis-undelivered-*.jsonl")
    (left,) = [json.loads(line) for line in spool.read_text().splitlines()]
    assert (left["name"], left["value"]) == ("closed.txt", "newer")


@pytest.mark.parametrize("status", [413, 404])
def test_a_file_that_a_proxy_will_never_take_is_kept_apart(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answer = requests.Response()
    answer.status_code = status

    def refuse(*arguments: object) -> None:
        raise requests.HTTPError(f"{status} of the proxy", response=answer)

    monkeypatch.setattr(recorder.client, "log_artifact", refuse)
    recorder.text("much", "large.html")
    recorder.metrics({"train/loss": 1.0}, 1)
    assert recorder.flush()
    (refused,) = recorder.spool_dir.glob("pixelis-refused-*.jsonl")
    assert json.loads(refused.read_text())["name"] == "large.html"


def test_what_is_asked_of_a_server_that_hangs_is_given_up(
    recorder: MlflowRecorder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pixelis.tracking.recorder.ATTEMPT_SECONDS", 0.1)
    never = threading.Event()
    assert recorder.attempt("asking", never.wait) is None
    never.set()
    assert "asking failed (TimeoutError: no answer within 0.1 s)" in capfd.readouterr().err
