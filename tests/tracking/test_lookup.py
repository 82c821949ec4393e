"""Finding runs, trainings and adapters again, by what a user has of them."""

import mlflow
import pytest

from pixelis.errors import CheckpointError, UserError
from pixelis.tracking import (
    MlflowRecorder,
    find_run,
    find_trainings,
    find_version,
    resolve_adapter,
)


def started(client, experiment, name, entry_point="sft"):
    found = client.get_experiment_by_name(experiment)
    home = found.experiment_id if found else client.create_experiment(experiment)
    recorder = MlflowRecorder(client, client.create_run(home, run_name=name))
    recorder.tags({"pixelis.entry_point": entry_point})
    return recorder


def finished(client, experiment, entry_point="sft", status="FINISHED"):
    recorder = started(client, experiment, f"of {experiment}", entry_point)
    recorder.params({"model.model_name": "pixelis-nano"})
    recorder.close(status)
    return recorder


def test_the_newest_finished_run_of_the_entry_point_is_found(client):
    finished(client, "pixelis")
    newest = finished(client, "pixelis")
    finished(client, "pixelis", "evaluate")
    finished(client, "other")
    finished(client, "pixelis", status="FAILED")
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
    for look in (find_run, find):
        with pytest.raises(UserError, match="^MLflow cannot be read .*777"):
            look("pixelis" if look is find_run else None)


def test_no_run_is_an_error_that_says_where_there_are_some(client):
    with pytest.raises(UserError, match="no finished sft run.*'pixelis'.*Default; none has one"):
        find_run("pixelis")
    finished(client, "other")
    with pytest.raises(UserError, match="experiments that have one: other$"):
        find_run("pixelis")


def test_a_folder_without_an_adapter_is_named_with_what_is_missing(client, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="final is incomplete: adapter_model.safetensors mis"):
        resolve_adapter(str(adapter))
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        resolve_adapter("nowhere")


@pytest.mark.parametrize("uri", ["runs:/" + "0" * 32, "models:/nothing@champion", "models:/m-0"])
def test_an_uri_that_leads_nowhere_is_a_clear_error(client, uri):
    with pytest.raises(CheckpointError, match=f"{uri}.* cannot be fetched"):
        resolve_adapter(uri)


def test_a_run_without_an_adapter_is_a_clear_error(client):
    run_id = finished(client, "pixelis").run_id
    with pytest.raises(CheckpointError, match="adapters/final"):
        resolve_adapter(f"runs:/{run_id}")


# Trainings


START = {"step": 0, "kind": "start", "from_stage": "a", "to_stage": "a", "mix": {"simple": 1.0}}


@pytest.fixture
def make(client):
    def make(name, entry_point="sft", *, place="pixelis", status="FINISHED"):
        recorder = started(client, place, name, entry_point)
        if entry_point == "sft":
            recorder.event(START)
        recorder.metrics({"eval/simple/loss": 2.0, "system/x": 1.0}, 0)
        recorder.metrics({"eval/simple/loss": 1.0}, 3)
        recorder.close(status)
        return recorder.run_id

    return make


def find(words, last=3):
    return find_trainings(words, experiment="pixelis", last=last, kept=("eval/",))


def names(found):
    return [training.info.name for training in found]


def test_a_training_is_named_by_id_by_the_beginning_of_one_or_by_name(make):
    first, second, _ = make("one"), make("two"), make("three")
    found = find([first, second[:8], "three"])
    assert names(found) == ["one", "two", "three"]
    assert found[0].history == {"eval/simple/loss": [(0, 2.0), (3, 1.0)]}
    assert found[0].events == [START]
    assert found[0].tests == []


def test_the_results_on_the_test_split_are_read(client, make):
    recorder = started(client, "pixelis", "measured", "sft")
    recorder.event(START)
    rows = [{"group": "all", "n": 9, "adapter_low": None}, {"group": "hard", "n": 12}]
    recorder.table(rows, "evaluation/table.json")
    recorder.close("FINISHED")
    measured, other = find([recorder.run_id, make("other")])
    assert [row["group"] for row in measured.tests] == ["all", "hard"]
    assert (measured.tests[0]["n"], measured.tests[0]["adapter_low"]) == (9, None)
    assert other.tests == []


def test_the_newest_finished_ones_are_taken_oldest_first(make):
    for name in ("one", "two", "three"):
        make(name)
    make("stopped", status="KILLED")
    make("not sft", "evaluate")
    assert names(find(None, last=2)) == ["two", "three"]


def test_an_experiment_with_one_training_is_passed_over(make, monkeypatch):
    make("one"), make("two"), make("alone", place="theirs")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert names(find(None)) == ["one", "two"]


def test_seven_letters_are_no_beginning(make):
    first = make("one")
    with pytest.raises(UserError, match=f"no run has the id or the name '{first[:7]}'; sft runs"):
        find([first[:7]])


def test_a_name_of_several_runs(make):
    ids = [make("twin"), make("twin")]
    with pytest.raises(UserError, match="'twin' could be 2 runs: twin .*; name one by its id") as e:
        find(["twin"])
    assert all(each[:8] in str(e.value) for each in ids)


def test_an_empty_store_and_a_single_run(make):
    with pytest.raises(UserError, match="got none; there is no sft run in this store"):
        find(None)
    run_id = make("one")
    with pytest.raises(UserError, match="two runs or more are compared, got one .*; sft runs"):
        find([run_id, "one"])


def test_a_run_without_a_curriculum(make):
    make("one"), make("two", "evaluate")
    with pytest.raises(
        UserError, match=r"the run two \(.*\), of evaluate, has no curriculum .*there are: one \("
    ):
        find(["one", "two"])


def test_a_long_list_is_cut(make):
    for number in range(12):
        make(f"run {number}")
    with pytest.raises(UserError, match=r"run 11 .* and 2 older ones$"):
        find(["nothing"])
