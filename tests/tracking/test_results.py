"""Traces and measured models, read back with MLflow's own client."""

import json
from pathlib import Path

import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace
from PIL import Image

from pixelis.tracking import (
    MlflowRecorder,
    deliver_journals,
    final_model,
    find_journals,
    link_measured,
    log_adapter,
    log_trace,
    measured_model,
)

NUMBERS = {"test/adapter/all/answer_accuracy": 0.75, "test/gain/all": 0.25}
RED = Image.new("RGB", (900, 30), "red")


@pytest.fixture
def recorder(client):
    return MlflowRecorder(client, client.create_run("0", run_name="evaluate"))


@pytest.fixture
def model_id(client, adapter):
    """The final adapter of another run."""
    sft = MlflowRecorder(client, client.create_run("0", run_name="sft"))
    log_adapter(sft, adapter, "final", 7, {"summary/final/hard": 0.5}, register_as="reader")
    sft.close("FINISHED")
    (model,) = client.search_logged_models(["0"])
    return str(model.model_id)


def trace(**more):
    message = {"type": "image_url", "image_url": {"url": RED}}
    fields = {
        "key": "rollout e1",
        "name": "wrong: reading",
        "preview": ("What does it say?", "B2 (A9)"),
        "spans": [
            {"name": "rollout", "type": "AGENT", "inputs": {"question": "q"}, "outputs": {"a": 1}},
            {
                "name": "turn 1",
                "type": "CHAT_MODEL",
                "inputs": {"messages": [{"role": "user", "content": [message]}]},
                "outputs": {"choices": []},
            },
            {
                "name": "ZOOM_IN",
                "type": "TOOL",
                "inputs": {"looked_at": [RED]},
                "outputs": {},
                "error": "bad box",
            },
        ],
        "assessment": "right (12 of 900)",
        "is_right": False,
        "why": "It did not look.",
        "answered": True,
        "tags": {"verdict": "wrong"},
        "model": None,
    }
    return fields | more


def test_a_trace_holds_spans_images_and_the_verdict(client, recorder, model_id):
    log_trace(recorder, **trace(model={"model_id": model_id}))
    recorder.close("FINISHED")
    (found,) = client.search_traces(locations=["0"], run_id=recorder.run_id)
    assert [(span.name, span.span_type) for span in found.data.spans] == [
        ("rollout", "AGENT"),
        ("turn 1", "CHAT_MODEL"),
        ("ZOOM_IN", "TOOL"),
    ]
    root, turn, tool = found.data.spans
    assert root.parent_id is None and {turn.parent_id, tool.parent_id} == {root.span_id}
    assert root.inputs == {"question": "q"} and root.outputs == {"a": 1}
    assert (tool.status.status_code.value, tool.status.description) == ("ERROR", "bad box")
    address = turn.inputs["messages"][0]["content"][0]["image_url"]["url"]
    assert address.startswith("mlflow-attachment://") and found.info.trace_id in address
    assert tool.inputs["looked_at"] == [address]  # the same image is kept once
    folder = get_artifact_repository(get_artifact_uri_for_trace(found.info))
    (name,) = [each.path for each in folder.list_artifacts("attachments")]
    assert name.rpartition("/")[2] == address.partition("//")[2].partition("?")[0]
    assert Image.open(folder.download_artifacts(name)).size == (768, 26)
    (verdict,) = found.info.assessments
    assert (verdict.name, verdict.value) == ("right (12 of 900)", False)
    assert verdict.rationale == "It did not look."
    shown = found.info.request_preview, found.info.response_preview
    assert shown == ("What does it say?", "B2 (A9)")
    assert found.info.tags["verdict"] == "wrong"
    assert found.info.tags["mlflow.traceName"] == "wrong: reading"
    assert found.info.state.value == "OK"
    by_model = client.search_traces(locations=["0"], model_id=model_id)
    assert [each.info.trace_id for each in by_model] == [found.info.trace_id]


def test_a_trace_sent_again_is_the_same_one(client, recorder):
    fields = trace(answered=False)
    log_trace(recorder, **fields)
    recorder.flush()
    (first,) = client.search_traces(locations=["0"])
    assert first.info.state.value == "ERROR"
    log_trace(recorder, **fields)
    log_trace(recorder, **fields | {"key": "rollout e2"})
    recorder.close("FINISHED")
    found = client.search_traces(locations=["0"])
    assert len(found) == 2 and first.info.trace_id in {each.info.trace_id for each in found}
    for each in found:
        assert (len(each.data.spans), len(each.info.assessments)) == (3, 1)


def test_a_trace_waits_while_the_store_is_away(client, recorder, tmp_path):
    database, away = tmp_path / "mlflow.db", tmp_path / "away.db"
    store = client._tracking_client.store
    store.engine.dispose()
    database.rename(away)
    database.mkdir()  # no database can be opened there
    log_trace(recorder, **trace())
    assert not recorder.flush()
    recorder.close("FINISHED")
    database.rmdir()
    away.rename(database)
    assert deliver_journals(find_journals([], [Path()]))[0]
    (found,) = client.search_traces(locations=["0"], run_id=recorder.run_id)
    assert len(found.data.spans) == 3


def test_a_trace_tells_nothing_that_is_nobodys_business(client, recorder, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcdefgh1234")
    home = str(Path.home() / "data/x.png")
    fields = trace(why=f"see {home}", tags={"path": home})
    fields["spans"][0]["inputs"] = {"question": f"abcdefgh1234 {home}"}
    log_trace(recorder, **fields)
    recorder.close("FINISHED")
    (found,) = client.search_traces(locations=["0"])
    text = json.dumps(found.to_dict())
    assert "abcdefgh1234" not in text and str(Path.home()) not in text
    assert "~/data/x.png" in text


def measured(client, model_id):
    model = client.get_logged_model(model_id)
    return {
        (m.key, m.value, str(m.dataset_name), str(m.run_id))
        for m in model.metrics or ()
        if m.key in NUMBERS
    }


def test_numbers_are_on_the_models_page_with_their_data(client, recorder, model_id):
    recorder.metrics(NUMBERS | {"test/base/all/answer_accuracy": 0.5}, 0)
    for _ in range(2):  # the second changes nothing
        link_measured(
            recorder, {"model_id": model_id}, list(NUMBERS), 0, name="cota_test", digest="d" * 64
        )
    recorder.close("FINISHED")
    assert measured(client, model_id) == {
        (key, value, "cota_test", recorder.run_id) for key, value in NUMBERS.items()
    }
    model = client.get_logged_model(model_id)
    assert len([m for m in model.metrics or () if m.key in NUMBERS]) == 2
    inputs = client.get_run(recorder.run_id).inputs
    assert [each.model_id for each in inputs.model_inputs] == [model_id]
    for key in NUMBERS:
        assert len(client.get_metric_history(recorder.run_id, key)) == 1
    ranked = client.search_logged_models(
        ["0"],
        datasets=[{"dataset_name": "cota_test", "dataset_digest": "d" * 36}],
        filter_string="metrics.`test/gain/all` > 0.2",
    )
    assert [each.model_id for each in ranked] == [model_id]


def test_a_second_evaluation_adds_its_own_numbers(client, model_id):
    for value in (0.25, 0.5):
        recorder = MlflowRecorder(client, client.create_run("0"))
        recorder.metrics({"test/gain/all": value}, 0)
        link_measured(
            recorder, {"model_id": model_id}, ["test/gain/all"], 0, name="cota_test", digest="d"
        )
        recorder.close("FINISHED")
    assert sorted(value for _, value, _, _ in measured(client, model_id)) == [0.25, 0.5]


def test_a_trainings_own_final_adapter_is_found_once_it_is_there(client, adapter):
    recorder = MlflowRecorder(client, client.create_run("0", run_name="sft"))
    log_adapter(recorder, adapter, "final", 7, {})
    recorder.metrics(NUMBERS, 7)
    link_measured(recorder, final_model("final"), list(NUMBERS), 7, name="cota_test", digest="d")
    log_trace(recorder, **trace(model=final_model("final")))
    recorder.close("FINISHED")
    (model,) = client.search_logged_models(["0"])
    assert {key for key, *_ in measured(client, str(model.model_id))} == set(NUMBERS)
    assert not client.get_run(recorder.run_id).inputs.model_inputs  # it is its output
    assert len(client.search_traces(locations=["0"], model_id=model.model_id)) == 1


def test_the_model_of_every_kind_of_address(client, recorder, model_id, tmp_path):
    run_id = client.get_logged_model(model_id).source_run_id
    for address in (
        f"models:/{model_id}",
        "models:/reader/1",
        "models:/reader@candidate",
        f"runs:/{run_id}",
        f"runs:/{run_id}/adapters/final",
    ):
        assert measured_model(recorder, address) == {"model_id": model_id}, address
    for address in (str(tmp_path / "final"), f"runs:/{run_id}/adapters/best", f"runs:/{run_id}/x"):
        assert measured_model(recorder, address) is None, address
    assert measured_model(recorder, f"runs:/{recorder.run_id}") is None
