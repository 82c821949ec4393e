"""Finding runs and adapters again."""

import json

import mlflow
import pytest

from pixelis.errors import CheckpointError, UserError
from pixelis.tracking import MlflowRecorder, find_run, find_version, resolve_adapter


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 32}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def finished(client, name, entry_point="sft"):
    found = client.get_experiment_by_name(name)
    home = found.experiment_id if found else client.create_experiment(name)
    recorder = MlflowRecorder(client, client.create_run(home, run_name=f"of {name}"))
    recorder.tags({"pixelis.entry_point": entry_point})
    recorder.params({"model.model_name": "pixelis-nano"})
    recorder.close("FINISHED")
    return recorder


def test_the_newest_finished_run_of_the_entry_point_is_found(client):
    finished(client, "pixelis")
    newest = finished(client, "pixelis")
    finished(client, "pixelis", "evaluate")
    finished(client, "other")
    failed = MlflowRecorder(client, client.create_run(newest.experiment_id))
    failed.tags({"pixelis.entry_point": "sft"})
    failed.close("FAILED")
    found = find_run("pixelis")
    assert found.run_id == newest.run_id
    assert found.name == "of pixelis"
    assert found.experiment_id == newest.experiment_id
    assert found.params == {"model.model_name": "pixelis-nano"}
    assert found.tags["pixelis.entry_point"] == "sft"


def test_the_experiment_of_the_environment_comes_first(client, monkeypatch):
    theirs = finished(client, "theirs")
    ours = finished(client, "pixelis")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert find_run("pixelis").run_id == theirs.run_id
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")  # `mlflow run` sets it; nothing finished there
    assert find_run("pixelis").run_id == ours.run_id


def test_a_store_that_is_no_database(client, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no database" * 100)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'notes.txt'}")
    with pytest.raises(UserError) as caught:
        find_run("pixelis")
    reason = "(sqlite3.DatabaseError) file is not a database"
    assert str(caught.value) == f"MLflow cannot be read ({reason})"
    for uri in ("models:/nano/1", "runs:/abc"):
        with pytest.raises(CheckpointError) as caught_too:
            find_version(uri)
        assert str(caught_too.value) == f"the adapter {uri} cannot be found: {reason}"


def test_a_registry_that_is_no_database(client, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no database" * 100)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path / 'notes.txt'}")
    with pytest.raises(CheckpointError, match=r"^the adapter models:/nano/1 cannot be found: .*$"):
        find_version("models:/nano/1")


def test_a_store_that_cannot_be_read(client, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "777")
    with pytest.raises(UserError, match="^MLflow cannot be read .*777"):
        find_run("pixelis")


def test_no_run_is_an_error_that_says_where_there_are_some(client):
    with pytest.raises(UserError, match="no finished sft run.*'pixelis'.*Default; none has one"):
        find_run("pixelis")
    finished(client, "other")
    with pytest.raises(UserError, match="experiments that have one: other$"):
        find_run("pixelis")


def test_a_folder_without_an_adapter_is_named_with_what_is_missing(client, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="final is incomplete: adapter_model.safetensors mis"):
        resolve_adapter(str(adapter), "pixelis")
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        resolve_adapter("nowhere", "pixelis")


@pytest.mark.parametrize("uri", ["runs:/" + "0" * 32, "models:/nothing@champion", "models:/m-0"])
def test_an_uri_that_leads_nowhere_is_a_clear_error(client, uri):
    with pytest.raises(CheckpointError, match=f"{uri}.* cannot be fetched"):
        resolve_adapter(uri, "pixelis")


def test_a_run_without_an_adapter_is_a_clear_error(client):
    finished(client, "pixelis")
    with pytest.raises(CheckpointError, match="adapters/final"):
        resolve_adapter(None, "pixelis")
