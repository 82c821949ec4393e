import re
import subprocess
import sys

import pytest

from pixelis.data_prep.difficulty import SCORERS, Score, build_scorer
from pixelis.data_prep.tasks import TASK_WEIGHTS
from pixelis.errors import ConfigError


def certain(examples):
    return [0.0 for _ in examples]


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_scores_every_kind_of_example(name, one_of_each, weights):
    score = build_scorer(name, weights=weights, task_weights=TASK_WEIGHTS, answer_losses=certain)
    scores = score(one_of_each)
    assert len(scores) == len(one_of_each)
    assert all(isinstance(each, Score) for each in scores)
    names = {tuple(each.components) for each in scores}
    assert len(names) == 1, "every example of a data set has the same components"
    assert score(one_of_each[:1]) == scores[:1], "a score does not depend on the others"
    assert score([]) == []


def test_an_unknown_scorer(weights):
    expected = "difficulty.scorer must be one of composite, model, multi, got 'best'"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        build_scorer("best", weights=weights)


def test_the_model_scorer_without_a_model(weights):
    expected = "difficulty.scorer model needs a base model, and none was given"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        build_scorer("model", weights=weights)


def test_nothing_here_imports_torch():
    modules = (
        "pixelis.data_prep.difficulty",
        "pixelis.data_prep.difficulty.categories",
        "pixelis.data_prep.difficulty.correlation",
        "pixelis.data_prep.figures",
        "pixelis.data_prep.summary",
        "pixelis.evaluation.answer_loss",
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
