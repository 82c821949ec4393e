import json

import pytest

from pixelis.curriculum import ConfigError, CurriculumConfig
from pixelis.curriculum.sections import SECTIONS, AdaptiveConfig, CompetenceConfig


def test_a_section_for_each_strategy_with_settings_of_its_own():
    plain = CurriculumConfig().to_dict()
    assert {key for key, value in plain.items() if isinstance(value, dict)} == set(SECTIONS)


def test_ints_are_kept_as_floats_where_floats_are_meant_and_null_as_null():
    config = AdaptiveConfig(floor=0, rate=1, active_fraction=1, noise_cut=1)
    shown = json.dumps([config.floor, config.rate, config.active_fraction, config.noise_cut])
    assert shown == "[0.0, 1.0, 1.0, 1.0]"
    assert AdaptiveConfig().active_fraction is None
    assert CompetenceConfig(steps=7).steps == 7


def test_a_section_checks_itself():
    with pytest.raises(ConfigError, match=r"^adaptive.noise_cut must be in \(0, 1\], got 0$"):
        AdaptiveConfig(noise_cut=0)
