from pixelis.figures import as_figure, as_page, layer_ranks, layer_spectra

ROWS = [
    {
        "layer": f"model.{part}.{number}.{kind}",
        "rank": rank,
        "singular_values": [2.0, 1.0],
        "explained": explained,
    }
    for part, number, kind, rank, explained in (
        ("language_model.layers", 0, "mlp.up_proj", 2, [0.5, 0.25]),
        ("language_model.layers", 1, "mlp.up_proj", 1, [0.75, 0.125]),
        ("visual.blocks", 0, "attn.qkv", 0, []),
    )
]


def test_a_line_for_each_kind_of_layer():
    ranks, shares = layer_ranks(ROWS).panels
    assert {line.label: line.points for line in ranks.items} == {
        "mlp.up_proj": [(0, 2.0), (1, 1.0)],
        "blocks attn.qkv": [(0, 0.0)],
    }
    assert {line.label: line.points for line in shares.items} == {
        "mlp.up_proj": [(0, 0.75), (1, 0.75)],
        "blocks attn.qkv": [(0, 0)],
    }


def test_a_mean_spectrum_for_each_kind_that_has_one():
    chart = layer_spectra(ROWS)
    (line,) = chart.panels[0].items
    assert (line.label, line.points) == ("mlp.up_proj", [(1.0, 0.625), (2.0, 0.1875)])
    assert chart.last == 2


def test_both_can_be_drawn():
    for chart in (layer_ranks(ROWS), layer_spectra(ROWS)):
        assert as_figure(chart).axes
        assert chart.label in as_page(chart, "ranks")
