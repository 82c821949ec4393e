"""The text behind the bar, and lines that do not break it."""

import io
import logging
import re
import sys

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from pixelis.cli.console import configure_logging
from pixelis.curriculum import CurriculumConfig, CurriculumManager
from pixelis.recorder import NullRecorder
from pixelis.training.callback import CurriculumCallback, ProgressCallback
from pixelis.training.trainer import BadSteps

TWO = [{"name": "both", "difficulty_mix": {"simple": 0.5, "hard": 0.5}}]
STRATA = {"simple": 0.91234, "medium": 0.9, "hard": 0.88}


def build(**settings):
    config = CurriculumConfig.from_dict(
        {"advancement_interval": 100, "min_performance_for_advance": 0.0} | settings
    )
    manager = CurriculumManager(config, max_steps=400)
    callback = CurriculumCallback(manager, NullRecorder(), None, eval_steps=50, examples_per_step=4)
    return ProgressCallback(callback, BadSteps(3, NullRecorder()))


def go(progress, step):
    for _ in range(step):
        progress.curriculum.manager.step()


def test_loss_strata_and_next_attempt():
    progress = build()
    assert progress.describe(0, 400) == "next attempt 100"
    progress.curriculum.losses.append((20, 0.41))
    progress.bad_steps.count = 2
    progress.curriculum.evaluations.append((1, STRATA))
    go(progress, 30)
    text = "loss 0.410, bad steps 2, simple 0.912 medium 0.900 hard 0.880, next attempt 100"
    assert progress.describe(30, 400) == text


@pytest.mark.parametrize(
    ("settings", "awaited"),
    [
        # Step -> the text before and after the manager's decision there.
        ({}, {100: ("next attempt 100", "next attempt 200")}),
        (
            {"trial_steps": 40},
            {
                100: ("next attempt 100", "trial ends 140"),
                140: ("trial ends 140", "next attempt 240"),
            },
        ),
        ({"advancement_interval": 300}, {300: ("next attempt 300", "no more attempts")}),
        (
            {"strategy": "schedule", "schedule": {"steps": [70, 80]}},
            {70: ("next stage 70", "next stage 80"), 80: ("next stage 80", "no more stages")},
        ),
        (
            {"strategy": "adaptive", "stages": TWO},
            {
                100: (
                    "mix simple 50% hard 50%, next mix 100",
                    "mix simple 50% hard 50%, next mix 200",
                ),
            },
        ),
    ],
    ids=["staged", "trial", "last", "schedule", "adaptive"],
)
def test_each_strategy_says_what_it_awaits(settings, awaited):
    progress, done = build(**settings), 0
    for step, (before, after) in awaited.items():
        go(progress, step - done)
        done = step
        assert progress.describe(step, 400) == before
        progress.curriculum.manager.attempt(step, STRATA)
        assert progress.describe(step, 400) == after


def test_an_extended_trial_says_its_new_end():
    progress = build(trial_steps=40, decision="progress")
    go(progress, 100)
    for step, rises in ((100, (0.0, 0.0)), (140, (-0.1, 0.1))):
        examples = {name: [0.5 + rise for rise in rises] for name in STRATA}
        progress.curriculum.manager.attempt(step, STRATA, examples=examples)
        go(progress, 40)
        assert progress.describe(step + 40, 400) == f"trial ends {step + 40}"
    assert progress.describe(150, 400) == "trial ends 180"


def test_where_the_curriculum_is_off_there_is_nothing_to_await():
    assert build(enabled=False).describe(0, 400) == ""


def test_a_strategy_that_chooses_examples_says_how_many_are_in():
    paced = build(strategy="self_paced", stages=TWO)
    paced.curriculum.manager.observe_losses(0, {"simple": {0: 0.1, 4: 0.2}, "hard": {1: 2.0}})
    assert paced.describe(0, 400) == "1 of 3 scored examples are in, next choice 100"
    ranked = build(strategy="competence", stages=TWO, competence={"c0": 0.6, "steps": 90})
    ranked.curriculum.manager.bind({"simple": [0.1, 0.2], "hard": [0.9]})
    assert ranked.describe(0, 400) == "the easiest 1 of 3 examples"
    go(ranked, 90)
    assert ranked.describe(90, 400) == "the easiest 3 of 3 examples"


@pytest.fixture
def arguments(tmp_path):
    return TrainingArguments(output_dir=str(tmp_path), report_to="none")


@pytest.fixture
def logger(monkeypatch):
    logger = logging.getLogger("pixelis")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.INFO)
    configure_logging()
    return logger


def test_the_bar_shows_stage_and_text_from_the_step_where_training_begins(
    arguments, capsys, monkeypatch, logger
):
    monkeypatch.setattr("pixelis.progress.LOG_SECONDS", 0.0)
    progress = build()
    state, control = TrainerState(max_steps=400, global_step=30), TrainerControl()
    progress.on_train_begin(arguments, state, control)
    assert progress.bar.n == 30
    go(progress, 31)
    state.global_step = 31
    progress.on_step_end(arguments, state, control)
    progress.curriculum.evaluations.append((1, STRATA))
    progress.on_evaluate(arguments, state, control)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("simple: ") and " 31/400 " in line for line in lines[1:])
    assert "hard 0.880, next attempt 100" in lines[-1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_of_the_console_leaves_the_bar_whole(arguments, capsys, monkeypatch, logger):
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = build()
    progress.on_train_begin(arguments, TrainerState(max_steps=400), TrainerControl())
    shown = sys.stderr.getvalue()
    assert "0/400" in shown
    logger.info("✅ Advanced")
    assert capsys.readouterr().out == "✅ Advanced\n"
    added = sys.stderr.getvalue().removeprefix(shown)
    cleared, drawn_again = re.fullmatch(r"\r( +)\r+(.*)", added).groups()
    assert " 0/400 " in drawn_again and len(cleared) >= len(drawn_again)
    progress.close()
