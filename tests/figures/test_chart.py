from pixelis.figures.chart import COLOURS, colour_of


def test_a_difficulty_keeps_the_colour_of_its_place():
    assert [colour_of(index) for index in range(2)] == list(COLOURS[:2])
    assert colour_of(len(COLOURS)) == COLOURS[0]
