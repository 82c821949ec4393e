"""compare: the timelines of finished trainings above each other, and what came of them."""

from collections.abc import Sequence

from pixelis.cli.arguments import parse_arguments, run_cli
from pixelis.config import CompareConfig, flatten


def main(argv: Sequence[str]) -> int:
    """Parse, read the trainings, open the run, draw, tell."""
    config = parse_arguments(
        argv,
        entry_point="compare",
        description="Draw the timelines of finished trainings above each other, with a table of "
        "what came of them: in a run of its own, that links to theirs.",
        config_class=CompareConfig,
        default_config="configs/compare.yaml",
    ).config

    from rich.console import Console
    from rich.markdown import Markdown

    from pixelis.experiments.compare.table import as_markdown, as_rows
    from pixelis.figures import compare_timelines
    from pixelis.runs.live_figures import DRAWN_METRICS, record_chart
    from pixelis.runs.read_trainings import read_trainings
    from pixelis.tracking import find_trainings, open_run

    words = None
    if config.runs is not None:
        words = [word.strip() for word in config.runs.split(",") if word.strip()]
    kept = (*DRAWN_METRICS, "curriculum/stage")
    found = find_trainings(words, experiment=config.experiment, last=config.last, kept=kept)
    trainings = read_trainings(found)
    with open_run(
        entry_point="compare",
        experiment=config.experiment,
        run_name=f"{len(trainings)} trainings compared",
        params=flatten(config),
        tags={"pixelis.compares": ",".join(training.run_id for training in trainings)},
        system_metrics=False,
    ) as recorder:
        courses = {training.name: training.course for training in trainings}
        record_chart(recorder, compare_timelines(courses), "comparison/timelines")
        recorder.table(as_rows(trainings), "comparison/table.json")
        recorder.text(as_markdown(trainings) + "\n", "comparison/table.md")
        recorder.note(as_markdown(trainings, links=True))
        Console(width=120).print(Markdown(as_markdown(trainings)))
        print(recorder.url_hint())
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
