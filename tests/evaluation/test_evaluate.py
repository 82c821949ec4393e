from dataclasses import replace

import datasets
import pytest

from pixelis.data.store import FEATURES, to_row
from pixelis.data_prep.generate import generate_example
from pixelis.errors import DataError
from pixelis.evaluation.evaluate import (
    EvaluationSettings,
    Progress,
    choose_examples,
    evaluate_model,
)
from pixelis.evaluation.rollout import Conversation, roll_out
from tests.small_data import make_thin

TASKS = ("object_counting", "text_extraction", "attribute_recognition")
LIMITS = {"max_operations": 1, "max_new_tokens": 6, "batch_size": 4}


def as_dataset(examples):
    if not examples:
        return datasets.Dataset.from_dict({name: [] for name in FEATURES})
    return datasets.Dataset.from_list([to_row(example) for example in examples])


@pytest.fixture(scope="module")
def rows():
    made = [
        replace(
            generate_example(seed=5, index=i, task=TASKS[i % 3], sample_type="positive"),
            difficulty="simple" if i < 9 else "hard",
            split="test",
        )
        # Of the last task, hard has one example only.
        for i in [*range(9), 9, 12, 15, 10, 13, 11]
    ]
    return {
        name: as_dataset([e for e in made if e.difficulty == name]) for name in ("simple", "hard")
    }


@pytest.fixture
def choose(encoder):
    return lambda rows, count, seed=0: choose_examples(
        rows, count, seed, split="test", encoder=encoder
    )


def test_examples_are_chosen_by_the_seed_with_tasks_in_turn(rows, choose):
    chosen = choose(rows, 3)
    assert [e.difficulty for e in chosen] == ["simple"] * 3 + ["hard"] * 3
    assert {e.task for e in chosen[:3]} == {e.task for e in chosen[3:]} == set(TASKS)
    ids = [e.id for e in choose(rows, 4)]
    assert ids == [e.id for e in choose(rows, 4)] != [e.id for e in choose(rows, 4, seed=1)]
    # A smaller choice is part of a larger one.
    assert {e.id for e in choose(rows, 2)} < {e.id for e in choose(rows, 5)}


def test_all_examples_are_chosen_where_there_are_few(rows, choose):
    assert len({e.id for e in choose(rows, 100)}) == 15
    # Other tasks fill up where one has no more.
    hard = [e for e in choose(rows, 5) if e.difficulty == "hard"]
    assert len(hard) == 5
    assert sum(e.task == "attribute_recognition" for e in hard) == 1


def test_difficulty_without_examples_is_named(rows, choose):
    empty = {**rows, "medium": as_dataset([])}
    with pytest.raises(DataError, match="the test split has no medium examples"):
        choose(empty, 2)
    # Though the split has examples of one difficulty alone: the data have others.
    with pytest.raises(DataError, match="the test split has no medium examples"):
        choose({"medium": as_dataset([]), "hard": rows["hard"]}, 2)


@pytest.mark.parametrize("in_step", [False, True])
def test_another_takes_the_place_of_one_that_the_processor_refuses(rows, choose, caplog, in_step):
    caplog.set_level("INFO", logger="pixelis")
    first, second = (example.id for example in choose({"hard": rows["hard"]}, 2))
    thin = [
        make_thin(row, in_step=in_step and bool(row["trajectory"])) if row["id"] == first else row
        for row in rows["hard"]
    ]
    ids = [example.id for example in choose({"hard": datasets.Dataset.from_list(thin)}, 2)]
    assert len(ids) == 2 and ids[0] == second and first not in ids
    (line,) = caplog.messages
    assert line.startswith(
        "refused by the model's processor and left out: 1 of test hard (example "
        f"{first}: the model's processor refuses an image of 900 x 4 pixels: "
    )


def evaluate(model, encoder, examples, **kwargs):
    own = {key: kwargs.pop(key) for key in ("progress", "against") if key in kwargs}
    settings = EvaluationSettings(**LIMITS | kwargs)
    return evaluate_model(model, encoder, examples, settings, **own)


def test_adapter_and_base_are_evaluated_on_the_same_examples(adapted, encoder, examples):
    seen = []
    result = evaluate(adapted, encoder, examples, progress=seen.append)
    assert result.examples == tuple(examples)
    conversations = [Conversation(example) for example in examples]
    settings = EvaluationSettings(**LIMITS)
    assert list(result.adapter.rollouts) == roll_out(adapted, encoder, conversations, settings)
    with adapted.disable_adapter():
        assert list(result.base.rollouts) == roll_out(adapted, encoder, conversations, settings)
    assert result.adapter.rollouts != result.base.rollouts
    assert set(result.adapter.accuracy) == set(result.base.accuracy)
    assert set(result.adapter.accuracy) == set(result.comparisons["base"])
    assert result.adapter.accuracy["all"].num == len(examples)
    assert result.adapter.rates["all"]["mean_new_tokens"] > 0
    # Each model starts without answers; the number of finished rollouts goes on.
    num = len(examples)
    assert [(s.model, s.done, s.total) for s in seen] == [
        *(("adapter", n, 2 * num) for n in range(num + 1)),
        *(("base", num + n, 2 * num) for n in range(num + 1)),
    ]
    assert seen[num].accuracy == pytest.approx(result.adapter.accuracy["all"].value)
    assert seen[-1].accuracy == pytest.approx(result.base.accuracy["all"].value)


def test_right_answers_of_the_embedded_base_are_counted(nano, encoder):
    tasks = ("attribute_recognition", "object_counting")
    easy = [
        replace(
            generate_example(seed=3, index=i, task=tasks[i % 2], sample_type="positive"),
            difficulty="simple",
        )
        for i in range(16)
    ]
    seen = []
    limits = {"max_operations": 4, "max_new_tokens": 96, "batch_size": 16}
    result = evaluate(nano, encoder, easy, **limits, compare_base=False, progress=seen.append)
    assert (result.base, result.comparisons) == (None, {})
    assert seen[-1] == Progress("adapter", 16, 16, result.adapter.accuracy["simple"].value)
    assert seen[-1].accuracy > 0
    turns = [turn for rollout in result.adapter.rollouts for turn in rollout.turns]
    assert all(turn.seconds > 0 for turn in turns)
    for turn in turns:
        was_run = turn.kind == "call" and turn.result is not None
        assert (turn.operation_seconds > 0) == was_run
    assert result.adapter.rates["simple"]["mean_operations"] > 0


def test_no_examples_and_a_missing_base_are_refused(lively, encoder, examples):
    with pytest.raises(ValueError, match=r"needs an adapter .* got Qwen2_5_VLForConditional"):
        evaluate(lively, encoder, examples)
    with pytest.raises(ValueError, match="at least one example, got none"):
        evaluate(lively, encoder, [], compare_base=False)
