from dataclasses import replace

from PIL import Image

from pixelis.runs.evaluation_record import LEFT_OUT, picture_cells, rollout_rows
from tests.evaluation.rollouts import answer, call, example, noise, result, rollout


def test_every_rollout_of_every_model_has_a_row():
    examples = [example("e0"), example("e1")]
    good, bad = [call(), answer("A9")], [replace(noise(), failure="no_call"), answer("B2")]

    def rolled(*kinds):
        return [rollout(*turns, example_id=f"e{i}") for i, turns in enumerate(kinds)]

    evaluated = result(examples, rolled(good, bad), rolled(bad, good), rolled(good, good))
    samples = tuple((r, replace(r, sample=1)) for r in evaluated.adapter.rollouts)
    planted = (rollout(*bad, example_id="e1", planted=True),)
    adapter = replace(evaluated.adapter, samples=samples, planted=planted)
    models = {**evaluated.models, "adapter": adapter}
    rows = rollout_rows(replace(evaluated, models=models), picture_cells(examples))
    starts = [(r["model"], r["id"], r["sample"], r["planted"], r["verdict"]) for r in rows]
    assert starts == [
        ("base", "e0", 0, False, "wrong"),
        ("base", "e1", 0, False, "right"),
        ("against", "e0", 0, False, "right"),
        ("against", "e1", 0, False, "right"),
        ("adapter", "e0", 0, False, "gained"),
        ("adapter", "e0", 1, False, "right"),
        ("adapter", "e1", 0, False, "lost"),
        ("adapter", "e1", 1, False, "wrong"),
        ("adapter", "e1", 0, True, "wrong"),
    ]
    assert [*rows[0]][:4] == ["question", "answer", "truth", "verdict"]
    assert rows[-1]["failures"] == "no_call 1" and rows[4]["failures"] == ""
    assert rows[-1]["why"].startswith("It answered “B2”") and rows[4]["why"] == ""


def test_images_after_the_first_ones_are_left_out():
    examples = [
        example(name, images=(Image.new("RGB", (300, 200), name),)) for name in ("white", "blue")
    ]
    cells = picture_cells(examples, max_pictures=1)
    assert cells["blue"] == LEFT_OUT and cells["white"].size == (128, 85)
