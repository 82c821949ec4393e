"""Trainings found by what a user has of them."""

import pytest

from pixelis.errors import UserError
from pixelis.tracking import MlflowRecorder, find_trainings

START = {"step": 0, "kind": "start", "from_stage": "a", "to_stage": "a", "mix": {"simple": 1.0}}


@pytest.fixture
def make(client):
    def make(name, entry_point="sft", *, place="pixelis", with_curriculum=True, status="FINISHED"):
        found = client.get_experiment_by_name(place)
        home = found.experiment_id if found else client.create_experiment(place)
        recorder = MlflowRecorder(client, client.create_run(home, run_name=name))
        recorder.tags({"pixelis.entry_point": entry_point})
        if with_curriculum:
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
    assert found[0].metrics["eval/simple/loss"] == 1.0


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
    make("one"), make("two", "evaluate", with_curriculum=False)
    with pytest.raises(
        UserError, match=r"the run two \(.*\), of evaluate, has no curriculum .*there are: one \("
    ):
        find(["one", "two"])


def test_a_long_list_is_cut(make):
    for number in range(12):
        make(f"run {number}")
    with pytest.raises(UserError, match=r"run 11 .* and 2 older ones$"):
        find(["nothing"])


def test_a_store_that_cannot_be_read(client, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(UserError, match="MLflow cannot be read"):
        find(None)
