from pixelis.figures.chart import (
    COLOURS,
    Area,
    Band,
    Chart,
    Line,
    Panel,
    Rule,
    colour_of,
    legend_order,
)


def test_a_difficulty_keeps_the_colour_of_its_place():
    assert [colour_of(index) for index in range(2)] == list(COLOURS[:2])
    assert colour_of(len(COLOURS)) == COLOURS[0]


def test_the_legend_has_stages_first_and_layers_from_the_upper_one_down():
    first = Panel([Band("one", 0, 1, "#000"), Line("line", [(0, 0)], "#000"), Rule(1, "#000", "x")])
    layers = [Area("low", [(0, 1)], "#000"), Area("high", [(0, 1)], "#000")]
    last = Panel([*layers, Band("two", 1, 2, "#000"), Band("tried", 1, 2, "#000", hatched=True)])
    order = legend_order(Chart([first, last], 2))
    assert order == ["one", "two", "high", "low", "line", "tried"]


def test_lines_across_are_white_on_bands():
    assert Panel([Band("one", 0, 1, "#000")]).grid == "#ffffff"
    assert Panel([]).grid != "#ffffff"
