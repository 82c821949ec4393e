"""What a training tells: every metric at its step, every event once, the guide's lines."""

import json

import pytest
from transformers import TrainerState, TrainingArguments

from pixelis.curriculum import CurriculumConfig, CurriculumManager
from pixelis.recorder import NullRecorder
from pixelis.training.callback import CurriculumCallback

pytestmark = pytest.mark.integration

DIFFICULTIES = ("simple", "medium", "hard")


@pytest.fixture(scope="module")
def told(whole):
    """Key -> {step: value} of the uninterrupted run."""
    found = {}
    for (key, step), value in whole.metrics.items():
        found.setdefault(key, {})[step] = value
    return found


def test_the_stage_has_one_value_a_step_and_after_an_event_the_new_one(whole, told):
    assert told["curriculum/stage"] == {1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2}
    stages = [step for key, step, _ in whole.records if key == "curriculum/stage"]
    assert stages == sorted(stages)


def test_strata_are_told_at_attempts_at_eval_steps_and_at_the_end(told):
    names = ("loss", "token_accuracy", "answer_accuracy", "answer_likelihood")
    keys = {f"eval/{d}/{name}" for d in DIFFICULTIES for name in names}  # decided by token_accuracy
    assert keys | {"eval/mix_performance"} == {key for key in told if key.startswith("eval/")}
    for key in keys:
        # Attempts after 2 and 4, eval_steps 5, max_steps 8.
        assert list(told[key]) == [2, 4, 5, 8], key
    # MLflow's first charts, since it sorts them by name: what decides.
    assert min(told) == "by_difficulty/hard"
    for name in DIFFICULTIES:
        assert told[f"by_difficulty/{name}"] == told[f"eval/{name}/token_accuracy"]


def test_the_mix_s_performance_is_that_of_the_stage_which_was_trained(told):
    mixes = {2: (1.0, 0.0, 0.0), 4: (0.4, 0.4, 0.2), 5: (0.2, 0.3, 0.5), 8: (0.2, 0.3, 0.5)}
    for step, mix in mixes.items():
        strata = [told[f"eval/{name}/token_accuracy"][step] for name in DIFFICULTIES]
        expected = sum(part * value for part, value in zip(mix, strata, strict=True))
        assert told["eval/mix_performance"][step] == pytest.approx(expected, abs=1e-12)


def test_training_metrics_come_at_logging_steps_and_saves(told):
    # logging_steps 2, save_steps 3
    for name in ("loss", "grad_norm", "learning_rate"):
        assert list(told[f"train/{name}"]) == [2, 3, 4, 6, 8]
    assert told["train/learning_rate"][8] < told["train/learning_rate"][2]
    assert all(value > 0 for value in told["train/loss"].values())


def test_every_event_is_told_once_when_it_happens(whole):
    order = [(key, step) for key, step, _ in whole.records]
    events = [(key, step) for key, step in order if key == "event"]
    assert events == [("event", 0), ("event", 2), ("event", 4), ("event", 8)]
    for step in (2, 4):
        assert order.index(("eval/hard/loss", step)) < order.index(("event", step))
        assert order.index(("event", step)) < order.index(("curriculum/stage", step + 1))


def test_events_carry_the_strata_and_what_was_seen(whole, told):
    for event in whole.events[1:]:
        step = event["step"]
        assert event["strata"] == {
            name: told[f"eval/{name}/token_accuracy"][step] for name in DIFFICULTIES
        }
        assert event["examples_seen"] == step * 2
    assert [e["strata_counts"] for e in whole.events[1:3]] == [dict.fromkeys(DIFFICULTIES, 2)] * 2


def test_the_console_has_the_guide_s_lines(whole):
    advances = [e for e in whole.events if e["kind"] == "advance"]
    assert [line for line in whole.lines if "curriculum" in line] == [
        f"✅ Advanced curriculum at step {e['step']}. "
        f"Performance: {e['perf_after']:.4f} (delta: {e['delta'] + 0.0:.4f})"
        for e in advances
    ]


def test_the_guide_s_line_of_a_rollback(train, retreating):
    result, recorder, lines = train(
        retreating
        | {
            "trial_steps": 0,
            "rollback_scope": "data",
            "rollback_threshold": 0.0,
            "performance_metric": "token_accuracy",
            "stages": SAME_TWICE,
        },
        max_steps=3,
    )
    (rollback,) = [e for e in result.events if e.kind == "rollback"]
    assert (rollback.reason, rollback.delta) == ("drop", 0.0)
    assert lines == ["🔙 Rolled back curriculum at step 2. Performance drop: 0.0000"]
    assert recorder.events == [event.to_dict() for event in result.events]
    assert result.statistics.splitlines() == [
        "=" * 40,
        "Final Curriculum Statistics:",
        "  Final stage: one",
        "  Total rollbacks: 1",
        "  Final weights: {'simple': 0.5, 'hard': 0.5}",
        "  Total samples used: 12",
        "=" * 40,
    ]


# Two mixes of the same performance: with a threshold of 0, only a gain is kept.
SAME_TWICE = [
    {"name": name, "difficulty_mix": {"simple": 0.5, "hard": 0.5}} for name in ("one", "two")
]


# The state


class Metrics(NullRecorder):
    def __init__(self):
        self.told = []

    def metrics(self, values, step):
        self.told.append((step, values))


def test_the_state_is_restored_and_nothing_is_recorded_or_logged_again(lines):
    config = CurriculumConfig.from_dict({"advancement_interval": 2})

    def build():
        manager = CurriculumManager(config, max_steps=8)
        return CurriculumCallback(manager, Metrics(), None, eval_steps=5, examples_per_step=4)

    callback = build()
    strata = dict.fromkeys(DIFFICULTIES, 0.9)
    for _ in range(2):
        callback.manager.step()
    callback.on_log(None, TrainerState(global_step=2), None, logs={"loss": 0.5, "epoch": 1.0})
    callback.manager.attempt(2, strata)
    callback.evaluations.append((2, strata))
    callback.best = {"step": 2, "performance": 0.9}
    state = json.loads(json.dumps(callback.state_dict()))

    other = build()
    other.load_state_dict(state)
    assert json.loads(json.dumps(other.state_dict())) == state
    assert other.losses == [(2, 0.5)]
    assert callback.recorder.told == [(2, {"train/loss": 0.5})] and other.recorder.told == []
    assert other.strata == strata
    assert [event.kind for event in other.manager.events] == ["start", "advance"]
    other.on_train_begin(TrainingArguments(use_cpu=True), TrainerState(), None)
    assert lines == []
