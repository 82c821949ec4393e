"""Adapters as LoggedModels: whole, once, measured on a dataset, with a card."""

import io
import json
from pathlib import Path

import pytest
from mlflow.models import Model
from PIL import Image

from pixelis.tracking import (
    MlflowRecorder,
    Origin,
    event_rows,
    find_champion,
    log_adapter,
    resolve_adapter,
)

ORIGIN = Origin(
    base_model="pixelis-nano",
    min_pixels=3136,
    max_pixels=12544,
    trust_remote_code=False,
    data="Data: made by no run of this store. Digest: `abc`.",
    curriculum="strategy: staged\n",
    seed=3,
)
SCORES = {"eval/hard/likelihood": 0.7, "eval/simple/likelihood": 0.9}
EVENT = {"delta": None, "reason": None, "mix": {"simple": 1.0}, "strata": None}


@pytest.fixture
def recorder(client):
    recorder = MlflowRecorder(client, client.create_run("0", run_name="r"), output_dir=Path("out"))
    recorder.origin = ORIGIN
    return recorder


def models(client):
    return list(client.search_logged_models(["0"]))


def test_an_adapter_is_kept_as_files_and_as_a_model(client, recorder, adapter):
    recorder.metrics({"eval/hard/likelihood": 0.7}, 400)
    log_adapter(recorder, adapter, "final", 400, SCORES)
    recorder.close("FINISHED")
    (model,) = models(client)
    short = recorder.run_id[:8]
    assert (model.name, model.status) == (f"adapter-final-{short}", "READY")
    assert model.source_run_id == recorder.run_id
    assert model.params == {"step": "400", "base_model": "pixelis-nano", "seed": "3"}
    assert {(m.key, m.value, m.step) for m in model.metrics} == {
        ("eval/hard/likelihood", 0.7, 400),
        ("eval/simple/likelihood", 0.9, 400),
    }
    run = client.get_run(recorder.run_id)
    assert [(o.model_id, o.step) for o in run.outputs.model_outputs] == [(model.model_id, 400)]
    for key in SCORES:
        assert len(client.get_metric_history(recorder.run_id, key)) == 1
    bare, path = f"runs:/{recorder.run_id}", f"runs:/{recorder.run_id}/adapters/final"
    for uri in (bare, path, f"models:/{model.model_id}", str(adapter)):
        folder = resolve_adapter(uri)
        assert (folder / "adapter_model.safetensors").read_bytes() == b"weights", uri


def test_each_adapter_of_a_run_has_the_validation_metrics_of_its_step(client, recorder, adapter):
    for step, value in ((100, 0.6), (200, 0.7)):
        recorder.metrics({"eval/hard/likelihood": value, "train/loss": 1.0}, step)
        recorder.metrics({"eval/untrusted/hard/likelihood": 0.1}, step)
    log_adapter(recorder, adapter, "best", 100, {"summary/best/hard": 0.6})
    log_adapter(recorder, adapter, "final", 200, {"summary/final/hard": 0.7})
    recorder.close("FINISHED")
    measured = {
        m.tags["pixelis.adapter"]: {p.key: p.value for p in m.metrics} for m in models(client)
    }
    assert measured == {
        "best": {"summary/best/hard": 0.6, "eval/hard/likelihood": 0.6},
        "final": {"summary/final/hard": 0.7, "eval/hard/likelihood": 0.7},
    }


def test_its_size_counts_the_adapter_and_its_example_is_the_given_one(client, recorder, adapter):
    log_adapter(recorder, adapter, "final", 400, {})
    picture = Image.new("RGB", (30, 20), "teal")
    recorder.model(adapter, "final", 400, [], example=(picture, "What colour is it?"))
    recorder.close("FINISHED")
    (model,) = models(client)
    folder = resolve_adapter(f"models:/{model.model_id}")
    weights = (folder / "adapter_model.safetensors").stat().st_size
    about = Model.load(str(folder))
    assert about.model_size_bytes > weights
    without = about.model_size_bytes - sum(f.stat().st_size for f in adapter.iterdir())
    assert 0 < without < sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    shown = about.load_input_example(str(folder))
    assert list(shown["question"]) == ["What colour is it?"]
    with Image.open(io.BytesIO(shown["image"][0])) as read:
        assert read.size == (30, 20) and read.getpixel((5, 5)) == picture.getpixel((5, 5))


def test_its_metrics_say_which_data_they_were_measured_on(client, recorder, adapter, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    (data := tmp_path / "data").mkdir()
    for name in ("simple", "hard"):
        file = data / f"cota_{name}.parquet"
        rows = {"id": ["a", "b", "c"], "split": ["train", "train", "validation"]}
        parquet.write_table(pa.table(rows), file)
        recorder.dataset(file, name=file.stem, context="training", digest=f"digest of {name}")
    place = {"name": "cota_validation", "context": "validation", "split": "validation"}
    recorder.dataset(data, **place, digest="digest of all")
    log_adapter(recorder, adapter, "final", 9, {**SCORES, "eval/mix_performance": 0.8})
    recorder.close("FINISHED")
    (model,) = models(client)
    measured = {m.key: (m.dataset_name, m.dataset_digest) for m in model.metrics}
    assert measured == dict.fromkeys(
        [*SCORES, "eval/mix_performance"], ("cota_validation", "digest of all")
    )
    inputs = client.get_run(recorder.run_id).inputs.dataset_inputs
    (found,) = [each for each in inputs if each.dataset.name == "cota_validation"]
    assert json.loads(found.dataset.profile) == {"split": "validation", "num_rows": 2}
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "validation")]
    # What the leaderboard of a dataset is made of.
    (best,) = client.search_logged_models(
        ["0"],
        datasets=[{"dataset_name": "cota_validation"}],
        order_by=[{"field_name": "metrics.`eval/hard/likelihood`", "ascending": False}],
    )
    assert best.model_id == model.model_id
    for key in SCORES:
        assert len(client.get_metric_history(recorder.run_id, key)) == 1


def test_a_card_says_what_it_is_and_what_it_came_from(client, recorder, adapter):
    event = {"step": 0, "kind": "start", "to_stage": "simple", "rollback_count": 0, "interval": 9}
    recorder.event({**EVENT, **event})
    rollback = {"step": 9, "kind": "rollback", "delta": -0.25, "reason": "drop"}
    recorder.event({**EVENT, **event, **rollback})
    recorder.event({**EVENT, **event, "step": 500, "kind": "rollback"})  # after the adapter
    log_adapter(recorder, adapter, "final", 400, SCORES)
    recorder.model(adapter, "final", 400, list(SCORES), results={"all": 0.5})
    recorder.close("FINISHED")
    (model,) = models(client)
    text = (resolve_adapter(f"models:/{model.model_id}") / "README.md").read_text()
    assert text.startswith('---\nbase_model: "pixelis-nano"\nlibrary_name: peft\n')
    assert "| 9 | rollback | simple | -0.2500 | drop |" in text and "| 500 |" not in text
    assert "| eval/hard/likelihood | 0.7000 |" in text and "| all | 0.5000 |" in text
    # Of trials, their own numbers as well.
    trial = {**EVENT, **event, **rollback, "progress": 0.02, "forgetting": 0.5}
    assert event_rows([EVENT | event, trial])[::3] == [
        "| step | event | stage | delta | progress | forgetting | reason |",
        "| 9 | rollback | simple | -0.2500 | +0.0200 | +0.5000 | drop |",
    ]
    needs = resolve_adapter(f"models:/{model.model_id}") / "requirements.txt"
    lines = needs.read_text().split()
    # An index may have a package of our name that is not ours.
    assert any(line.startswith("torch==") for line in lines) and "pixelis" not in lines
    assert not any("pytest" in line for line in lines)
    assert "Digest: `abc`" in text and "strategy: staged" in text and "seed 3" in text


def test_what_a_visit_ended_with_is_a_model_of_the_run_and_of_the_visit(client, recorder, adapter):
    folder = adapter.rename(adapter.with_name("visit-01-simple"))
    fields = {**EVENT, "to_stage": "simple", "rollback_count": 0, "interval": 9}
    recorder.event({**fields, "step": 0, "kind": "start"})
    recorder.metrics({**SCORES, "train/loss": 1.0}, 100)
    recorder.event({**fields, "step": 100, "kind": "trial", "to_stage": "balanced"})
    recorder.artifact(folder, "adapters/visit-01-simple")
    recorder.close("KILLED")
    (model,) = models(client)
    name = f"adapter-visit-01-simple-{recorder.run_id[:8]}"
    assert (model.name, model.tags["pixelis.step"]) == (name, "100")
    assert {m.key for m in model.metrics} == set(SCORES)
    (first,) = client.search_runs(["0"], "tags.`pixelis.visit` = '1'")
    for run_id in (recorder.run_id, first.info.run_id):
        (output,) = client.get_run(run_id).outputs.model_outputs
        assert (output.model_id, output.step) == (model.model_id, 100)


def test_a_resumed_run_logs_an_adapter_once(client, recorder, adapter):
    log_adapter(recorder, adapter, "final", 400, SCORES)
    recorder.close("KILLED")
    (model,) = models(client)
    run = client.get_run(recorder.run_id)
    resumed = MlflowRecorder(client, run, resumed=True, output_dir=Path("out"))
    log_adapter(resumed, adapter, "final", 400, SCORES)
    log_adapter(resumed, adapter, "best", 400, SCORES)
    resumed.close("FINISHED")
    short = recorder.run_id[:8]
    names = [f"adapter-best-{short}", f"adapter-final-{short}"]
    assert sorted(m.name for m in models(client)) == names
    assert model.model_id in {m.model_id for m in models(client)}
    outputs = client.get_run(recorder.run_id).outputs.model_outputs
    assert len(outputs) == 2


def test_a_model_that_was_not_whole_is_made_whole(client, recorder, adapter, monkeypatch):
    real = client.log_model_artifacts

    def refuse(*args, **kwargs):
        raise OSError("the line is cut")

    monkeypatch.setattr(client, "log_model_artifacts", refuse)
    log_adapter(recorder, adapter, "best", 1, {})
    recorder.flush()
    assert [m.status for m in models(client)] == ["PENDING"]
    monkeypatch.setattr(client, "log_model_artifacts", real)
    recorder.close("FINISHED")
    assert [m.status for m in models(client)] == ["READY"]


def test_a_folder_that_is_gone_is_no_reason_to_wait_for_ever(client, recorder, tmp_path, caplog):
    recorder.model(tmp_path / "gone", "best", 1, [])
    recorder.metrics({"train/loss": 1.0}, 1)
    assert recorder.flush()
    assert "gone is not there any more" in caplog.text
    assert client.get_run(recorder.run_id).data.metrics == {"train/loss": 1.0}
    recorder.close("FINISHED")


def test_a_name_is_made_fit_for_a_model(client, recorder, adapter):
    log_adapter(recorder, adapter, "2:balanced/0.4", 9, {})
    recorder.close("FINISHED")
    name = f"adapter-2-balanced-0-4-{recorder.run_id[:8]}"
    assert [m.name for m in models(client)] == [name]


def test_registered_it_is_the_candidate_once(client, recorder, adapter):
    for _ in range(2):
        log_adapter(recorder, adapter, "final", 400, {}, register_as="reader")
    recorder.close("FINISHED")
    (version,) = client.search_model_versions("name = 'reader'")
    assert version.run_id == recorder.run_id
    candidate = client.get_model_version_by_alias("reader", "candidate")
    assert candidate.version == version.version
    assert find_champion(client, "reader") is None
    folder = resolve_adapter("models:/reader@candidate")
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"


def test_below_the_home_folder_an_adapter_is_found_when_it_is_delivered(
    client, recorder, adapter, monkeypatch
):
    monkeypatch.setenv("HOME", str(adapter.parent))
    log_adapter(recorder, adapter, "final", 400, {})
    recorder.close("FINISHED")
    (model,) = models(client)
    assert model.status == "READY"
    folder = resolve_adapter(f"models:/{model.model_id}")
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"


def test_a_line_that_is_cut_after_the_model_was_whole_loses_no_link(
    client, recorder, adapter, monkeypatch
):
    real = client.log_outputs

    def refuse(*args, **kwargs):
        raise OSError("the line is cut")

    monkeypatch.setattr(client, "log_outputs", refuse)
    log_adapter(recorder, adapter, "final", 1, {})
    recorder.flush()
    monkeypatch.setattr(client, "log_outputs", real)
    recorder.close("FINISHED")
    (model,) = models(client)
    (output,) = client.get_run(recorder.run_id).outputs.model_outputs
    assert (output.model_id, model.status) == (model.model_id, "READY")


def test_two_visits_that_end_at_one_step_have_each_its_own(client, recorder, adapter):
    fields = {**EVENT, "rollback_count": 0, "interval": 9}
    for step, kind, stage in (
        (0, "start", "simple"),
        (9, "trial", "balanced"),
        (12, "rollback", "simple"),
        (12, "end", "simple"),
    ):
        recorder.event({**fields, "step": step, "kind": kind, "to_stage": stage, "delta": -0.5})
    for name in ("visit-02-balanced", "visit-03-simple"):
        folder = adapter.with_name(name)
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        recorder.artifact(folder, f"adapters/{name}")
    recorder.close("FINISHED")
    by_id = {model.model_id: model.name for model in models(client)}
    short = recorder.run_id[:8]
    for index, stage in ((2, "02-balanced"), (3, "03-simple")):
        (visit,) = client.search_runs(["0"], f"tags.`pixelis.visit` = '{index}'")
        outputs = client.get_run(visit.info.run_id).outputs.model_outputs
        names = [by_id[output.model_id] for output in outputs]
        assert names == [f"adapter-visit-{stage}-{short}"]
