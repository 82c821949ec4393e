"""The timelines of several trainings above each other on one axis of steps."""

from collections.abc import Mapping

from pixelis.figures.chart import SIZE, Chart, Panel
from pixelis.figures.history import TrainingHistory
from pixelis.figures.timeline_chart import stage_names, timeline_panels

EACH = 290  # pixels of a training


def compare_timelines(courses: Mapping[str, TrainingHistory]) -> Chart:
    """The timelines under the names of their trainings, in colours that mean the same in all."""
    stages = stage_names(list(courses.values()))
    panels: list[Panel] = []
    for name, course in courses.items():
        panels += timeline_panels(course, stages, title=name)
    last = max(course.max_steps for course in courses.values())
    return Chart(panels, last, size=(SIZE[0], 60 + EACH * len(courses)))
