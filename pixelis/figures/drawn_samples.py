"""Examples drawn so far by difficulty, as layers over the steps."""

from pixelis.figures.chart import Area, Chart, Item, Panel, Rule, colour_of
from pixelis.figures.downsample import thin_rows
from pixelis.figures.history import TrainingHistory


def samples_drawn(course: TrainingHistory) -> Chart:
    """How many examples of each difficulty were drawn until each step; advances are marked."""
    counts = thin_rows(drawn_so_far(course))
    names = list(dict.fromkeys(name for _, values in counts for name in values))
    items: list[Item] = [
        Area(name, [(step, values.get(name, 0.0)) for step, values in counts], colour_of(index))
        for index, name in enumerate(names)
    ]
    if course.rules.has_stages:
        items += [
            Rule(int(event["step"]), "#222222", str(event["to_stage"]))
            for event in course.events
            if event["kind"] == "advance"
        ]
    label = "examples drawn so far (number)"
    return Chart([Panel(items, label=label, low=0)], course.max_steps)


def drawn_so_far(course: TrainingHistory) -> list[tuple[int, dict[str, float]]]:
    """Cumulative counts at every change of the mix and at the end.

    The sampler keeps to the fractions of a mix within one example, so the mixes tell the counts.
    """
    if not course.mixes:
        return []
    totals: dict[str, float] = {name: 0.0 for _, mix in course.mixes for name in mix}
    counts = []
    ends = [step for step, _ in course.mixes[1:]] + [course.reached]
    for (step, mix), end in zip(course.mixes, ends, strict=True):
        counts.append((step, dict(totals)))
        for name, share in mix.items():
            totals[name] += share * (end - step) * course.rules.examples_per_step
    return [*counts, (course.reached, totals)]
