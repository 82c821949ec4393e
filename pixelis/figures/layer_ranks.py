"""Figures of EVA: the rank of each layer, and the spectrum of its inputs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pixelis.figures.chart import Chart, Item, Panel, colour_of, line, stack_panels

Row = Mapping[str, Any]
_BLOCK = re.compile(r"^(?P<part>.*?)\.(?P<number>\d+)\.(?P<kind>.*)$")


def layer_ranks(rows: Sequence[Row]) -> Chart:
    """Chart the rank of every layer by its number in the stack, a line for each kind of layer.

    Args:
        rows: `layer` (a path such as `model.language_model.layers.3.mlp.up_proj`), `rank`,
            `explained` (share of variance of each direction, the largest first).
    """
    kinds = _by_kind(rows)
    ranks: list[Item] = []
    shares: list[Item] = []
    for index, (kind, layers) in enumerate(kinds.items()):
        points = [(number, float(row["rank"])) for number, row in layers]
        kept = [(number, sum(row["explained"][: row["rank"]])) for number, row in layers]
        dotted = index >= 6  # there are six colours
        ranks.append(line(kind, points, colour_of(index), dots=True, dotted=dotted))
        shares.append(line(kind, kept, colour_of(index), dots=True, dotted=dotted))
    panels = [
        Panel(ranks, label="rank", low=0),
        Panel(shares, label="variance of inputs kept (0 to 1)", low=0, high=1),
    ]
    last = max(1, *(number for layers in kinds.values() for number, _ in layers))
    return stack_panels(panels, last, label="layer")


def layer_spectra(rows: Sequence[Row]) -> Chart:
    """Chart the share of variance by direction, averaged over the layers of each kind."""
    items: list[Item] = []
    longest = 1
    for index, (kind, layers) in enumerate(_by_kind(rows).items()):
        spectra = [row["explained"] for _, row in layers if row["explained"]]
        # As many directions as the shortest spectrum has.
        means = [sum(values) / len(values) for values in zip(*spectra, strict=False)]
        if means:
            points = [(float(i), mean) for i, mean in enumerate(means, 1)]
            items.append(line(kind, points, colour_of(index), dotted=index >= 6))
            longest = max(longest, len(means))
    panel = Panel(items, label="share of the inputs' variance (mean of layers)", low=0)
    return stack_panels([panel], longest, label="direction, the largest first")


def _by_kind(rows: Sequence[Row]) -> dict[str, list[tuple[int, Row]]]:
    """Group the rows by kind of layer, each with its number in the stack."""
    kinds: dict[str, list[tuple[int, Row]]] = {}
    for row in rows:
        match = _BLOCK.match(row["layer"])
        part, number, kind = match.groups() if match else (row["layer"], "0", "")
        name = kind if ".language_model." in f".{part}." else f"{part.split('.')[-1]} {kind}"
        kinds.setdefault(name, []).append((int(number), row))
    return kinds
