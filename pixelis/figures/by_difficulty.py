"""Figures by difficulty over the steps: examples drawn so far, and validation loss."""

from pixelis.figures.chart import Area, Chart, Item, Panel, VerticalLine, colour_of
from pixelis.figures.downsample import downsample_rows
from pixelis.figures.history import TrainingHistory
from pixelis.figures.timeline import difficulty_lines, stage_bands, stage_names


def loss_by_difficulty(history: TrainingHistory) -> Chart:
    """Chart the validation loss of each difficulty over the bands of the stages."""
    bands = stage_bands(history, stage_names([history]))
    items: list[Item] = [*bands, *difficulty_lines(history.losses)]
    return Chart([Panel(items, label="validation loss (nats per token)", low=0)], history.max_steps)


def samples_drawn(history: TrainingHistory) -> Chart:
    """Chart how many examples of each difficulty were drawn up to each step; mark advances."""
    counts = downsample_rows(count_drawn(history))
    names = list(dict.fromkeys(name for _, values in counts for name in values))
    items: list[Item] = [
        Area(name, [(step, values.get(name, 0.0)) for step, values in counts], colour_of(index))
        for index, name in enumerate(names)
    ]
    if history.rules.has_stages:
        items += [
            VerticalLine(int(event["step"]), "#222222", str(event["to_stage"]))
            for event in history.events
            if event["kind"] == "advance"
        ]
    label = "examples drawn so far (number)"
    return Chart([Panel(items, label=label, low=0)], history.max_steps)


def count_drawn(history: TrainingHistory) -> list[tuple[int, dict[str, float]]]:
    """Compute the cumulative counts at every change of the mix and at the end.

    The sampler keeps to the fractions of a mix within one example, so the mixes give the counts.
    """
    if not history.mixes:
        return []
    totals: dict[str, float] = {name: 0.0 for _, mix in history.mixes for name in mix}
    counts = []
    ends = [step for step, _ in history.mixes[1:]] + [history.reached]
    for (step, mix), end in zip(history.mixes, ends, strict=True):
        counts.append((step, dict(totals)))
        for name, share in mix.items():
            totals[name] += share * (end - step) * history.rules.examples_per_step
    return [*counts, (history.reached, totals)]
