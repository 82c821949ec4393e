"""Which settings become parameters of a run, and which its tags."""

import pytest

from pixelis.config import ModelConfig, TrainingFileConfig
from pixelis.config.section import validate
from pixelis.curriculum import CurriculumConfig
from pixelis.runs.run_params import place_tags, run_params
from pixelis.runs.training_checks import resolved_params


def settings_of(*, model=None, **curriculum):
    config = validate(TrainingFileConfig, {"training": {"output_dir": "out"}})
    model_config = validate(ModelConfig, model or {})
    return resolved_params(config, model_config, CurriculumConfig.from_dict(curriculum))


def test_parameters_are_about_fifty_settings_that_can_change_the_result():
    settings = settings_of()
    params = run_params(settings)
    assert len(params) <= 50 < len(settings)
    for key in ("training.seed", "curriculum.rollback_threshold", "model.lora_r", "data.exclude"):
        assert params[key] == settings[key]
    assert not [key for key in params if key.endswith(("path", "_dir", "exp_name", "num_workers"))]


def test_paths_and_names_are_tags():
    assert place_tags(settings_of()) == {
        "exp_name": "sft_curriculum",
        "data.path": "data/cota",
        "data.prep": "configs/data_prep.yaml",
        "training.output_dir": "out",
    }


@pytest.mark.parametrize("strategy", ["staged", "competence", "adaptive"])
def test_sections_of_other_strategies_are_no_parameters(strategy):
    def sections(params):
        return {key.split(".")[1] for key in params if key.count(".") == 2}

    params = run_params(settings_of(strategy=strategy))
    assert sections(params) == {strategy} - {"staged"}
    assert sections(run_params(settings_of(strategy=strategy, enabled=False))) == set()


def test_settings_of_automatic_ranks_are_parameters_where_they_are_used():
    for model in ({"lora_r": "auto"}, {"init_lora_weights": "eva"}):
        assert run_params(settings_of(model=model))["model.lora_auto_examples"] == 64
    assert "model.lora_auto_rank" not in run_params(settings_of())
