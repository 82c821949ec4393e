import pytest

from pixelis.curriculum import CurriculumConfig
from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies import Strategy


def test_a_strategy_that_decides_says_how():
    strategy, state = Strategy(CurriculumConfig()), CurriculumState(0, 1)
    with pytest.raises(NotImplementedError, match="Strategy does not decide on strata"):
        strategy.decide(state, 1)
    with pytest.raises(NotImplementedError, match="Strategy does not decide on losses"):
        strategy.select(state, 1, {})


def test_by_default_it_wants_strata_and_has_nothing_to_say():
    strategy, state = Strategy(CurriculumConfig()), CurriculumState(0, 1)
    assert strategy.wants(state, 1) == "strata"
    assert strategy.describe(state, 1) is None and strategy.wait(state, 1) is None
