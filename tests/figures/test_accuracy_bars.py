"""The figure, read back from its matplotlib objects."""

from pixelis.figures import accuracy


def test_accuracy_groups_base_and_adapter_with_their_intervals():
    table = [
        {"difficulty": d, "model": m, "accuracy": a, "low": a - 0.1, "high": a + 0.2, "n": 40}
        for m, values in (("base", (0.4, 0.2)), ("adapter", (0.7, 0.6)))
        for d, a in zip(("simple", "hard"), values, strict=True)
    ]
    figure = accuracy(table)
    axes = figure.axes[0]
    assert list(figure.get_size_inches() * figure.dpi) == [1000, 560]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["base", "adapter"]
    assert [bar.get_height() for bar in axes.patches] == [0.4, 0.2, 0.7, 0.6]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "simple\n(n = 40)",
        "hard\n(n = 40)",
    ]
    whiskers = [segment for c in axes.collections for segment in c.get_segments()]
    assert [(round(s[0][1], 6), round(s[1][1], 6)) for s in whiskers] == [
        (0.3, 0.6),
        (0.1, 0.4),
        (0.6, 0.9),
        (0.5, 0.8),
    ]
