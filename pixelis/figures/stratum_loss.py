"""Validation loss by difficulty over the steps, under the bands of the stages."""

from pixelis.figures.chart import Chart, Item, Panel
from pixelis.figures.history import TrainingHistory
from pixelis.figures.timeline_chart import difficulty_lines, stage_bands, stage_names


def loss_by_difficulty(course: TrainingHistory) -> Chart:
    """How the loss of each difficulty went."""
    bands = stage_bands(course, stage_names([course]))
    items: list[Item] = [*bands, *difficulty_lines(course.losses)]
    return Chart([Panel(items, label="validation loss (nats per token)", low=0)], course.max_steps)
