"""A course is the same whether its metrics come from a training or from the store."""

from pixelis.figures import FigureSettings, build_history


def test_metrics_become_strata_losses_and_training_loss(course):
    built = course()
    assert built.strata == [(0, {"simple": 0.2, "hard": 0.1}), (50, {"simple": 0.8, "hard": 0.4})]
    assert built.losses == [(0, {"simple": 1.5, "hard": 2.0}), (50, {"simple": 0.5, "hard": 1.0})]
    assert built.training_loss == [(1, 2.0), (2, 1.0)]
    assert (built.reached, built.max_steps) == (50, 100)
    # From easy to hard as the mixes name them, not as the metrics do.
    assert list(built.strata[0][1]) == ["simple", "hard"]


def test_the_metric_is_the_one_that_decides(course, history):
    told = history | {"eval/simple/likelihood": [(7, 0.3)]}
    assert course(told=told, metric="likelihood").strata == [(7, {"simple": 0.3})]


def test_mixes_come_from_events_and_from_metrics(drifting):
    assert drifting.mixes == [
        (0, {"simple": 1.0, "hard": 0.0}),
        (20, {"simple": 0.5, "hard": 0.5}),
        (21, {"simple": 0.25, "hard": 0.75}),
    ]


def test_weights_that_went_back_have_their_strata_again(course, event, start):
    mix, before = {"simple": 1.0}, {"simple": 0.2, "hard": 0.1}
    trial = event(30, "trial", "easy", "full", mix, strata=before)
    back = event(50, "rollback", "easy", "easy", mix, strata={"simple": 0.8, "hard": 0.4})
    after = {"simple": 0.8, "hard": 0.4}
    kept = course([start, trial, back])
    assert kept.strata[1:] == [(50, after)]
    restored = course([start, trial, back], restores_weights=True)
    assert restored.strata[1:] == [(50, after), (50, before)]


def test_a_course_may_have_nothing_yet():
    empty = build_history([], {}, max_steps=10, rules=FigureSettings())
    assert (empty.strata, empty.mixes, empty.reached) == ([], [], 0)
