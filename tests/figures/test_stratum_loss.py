from pixelis.figures import loss_by_difficulty
from pixelis.figures.chart import Band, Line


def test_a_line_for_each_difficulty_over_the_stages(course):
    (panel,) = loss_by_difficulty(course()).panels
    lines = {item.label: item.points for item in panel.items if isinstance(item, Line)}
    assert lines == {"simple": [(0, 1.5), (50, 0.5)], "hard": [(0, 2.0), (50, 1.0)]}
    assert [item.label for item in panel.items if isinstance(item, Band)] == ["stage easy"]
    assert panel.label == "validation loss (nats per token)"
