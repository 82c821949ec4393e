"""What makes two trainings the same one."""

import pytest
import torch

from pixelis.config import ModelConfig, TrainingConfig, TrainingFileConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.runs.training_checks import (
    check_training,
    free_settings,
    resolved_params,
    training_identity,
)

MODEL = ModelConfig()


def identity(config, model=MODEL):
    return training_identity(resolved_params(config, model, CurriculumConfig()), model, {})


def with_training(**changed):
    return TrainingFileConfig(training=TrainingConfig(batch_size=8).replace(**changed))


FREE = {
    "logging_steps": 1,
    "save_steps": 7,
    "save_total_limit": 9,
    "num_workers": 3,
    "vision_cache": "off",
    "vision_cache_gib": 1.0,
    "max_bad_steps": 9,
    "output_dir": "elsewhere",
}


def test_names_places_and_what_is_written_are_no_part_of_what_is_trained():
    config = with_training(gradient_accumulation_steps=2)
    changed = config.replace(
        exp_name="another",
        register="reader",
        resume="auto",
        training=config.training.replace(**FREE),
        data=config.data.replace(prep=None, path="moved"),
        evaluation=config.evaluation.replace(num_traces=1, num_reported=2),
    )
    assert identity(changed) == identity(config)
    free = free_settings(resolved_params(changed, MODEL, CurriculumConfig()))
    told = {f"training.{name}": value for name, value in FREE.items() if name != "output_dir"}
    assert told.items() <= free.items() and not {"resume", "training.output_dir"} & set(free)
    assert (free["exp_name"], free["data.path"], free["data.prep"]) == ("another", "moved", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 9),
        ("max_steps", 9),
        ("learning_rate", 0.5),
        ("eval_steps", 9),
        ("eval_batch_size", 9),
        ("max_length", 9),
        ("precision", "bf16"),
    ],
)
def test_what_decides_the_result_is(name, value):
    config = with_training(precision="fp32")
    changed = config.replace(training=config.training.replace(**{name: value}))
    one, other = identity(config), identity(changed)
    assert {key for key in one if one[key] != other[key]} == {f"training.{name}"}


@pytest.mark.parametrize(
    ("precision", "dtype", "has_gpu", "is_free"),
    [
        ("fp32", "float32", False, True),
        ("fp32", "float32", True, False),
        ("fp32", "bfloat16", False, False),
        ("bf16", "float32", False, False),
    ],
)
def test_the_size_of_evaluation_batches_is_where_they_change_bits(
    monkeypatch, precision, dtype, has_gpu, is_free
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    model = MODEL.replace(torch_dtype=dtype)
    one, other = (with_training(precision=precision, eval_batch_size=size) for size in (8, 9))
    assert (identity(one, model) == identity(other, model)) == is_free
    free = free_settings(resolved_params(other, model, CurriculumConfig()))
    assert free.get("training.eval_batch_size") == (9 if is_free else None)


def test_how_a_step_is_split_and_what_is_left_out_is_no_part_of_what_is_trained():
    one = identity(with_training(gradient_accumulation_steps=2))
    assert one["examples a step and process"] == 16
    split = with_training(batch_size=4, gradient_accumulation_steps=4, auto_batch_size=True)
    data = split.data.replace(exclude=("an-id",), path="moved", trusted="moved too")
    checkpointing = MODEL.replace(gradient_checkpointing=not MODEL.gradient_checkpointing)
    assert identity(split.replace(data=data), checkpointing) == one


@pytest.mark.parametrize("metric", ["likelihood", "answer_likelihood"])
def test_progress_by_another_metric_is_warned_of(made_data, caplog, metric):
    curriculum = {"decision": "progress", "trial_steps": 5, "performance_metric": metric}
    config = TrainingFileConfig()
    config = config.replace(data=config.data.replace(path=str(made_data)))
    check_training(config, MODEL, CurriculumConfig.from_dict(curriculum))
    assert ("--curriculum.performance_metric answer_likelihood" in caplog.text) == (
        metric == "likelihood"
    )


def test_how_many_examples_a_step_has_is():
    one = identity(with_training(gradient_accumulation_steps=2))
    for changed in ({"gradient_accumulation_steps": 4}, {"gradient_accumulation_steps": 1}):
        other = identity(with_training(**changed))
        assert {key for key in one if one[key] != other[key]} == {"examples a step and process"}
