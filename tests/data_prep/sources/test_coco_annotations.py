"""What is asked of annotated things: only what the operations measure as the mask says."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from pixelis.config import DataPrepConfig, DifficultyConfig
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.prepare import prepare_folder
from pixelis.data_prep.sources.coco import CocoInstances
from pixelis.data_prep.sources.coco_annotations import MIN_IOU
from pixelis.data_prep.summary import format_summary
from pixelis.operations.masks import encode_mask

SIZE = (96, 320)
WALL = (180, 60, 60)
BLUE, YELLOW, GREEN, BLACK = (35, 70, 215), (240, 205, 20), (30, 150, 60), (20, 20, 20)
FADED, STRIPE = (215, 35, 40), (250, 20, 20)  # as red as the wall; only the stripe stands out


def disc(x, y, radius):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def block(x1, y1, x2, y2):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def box_of(mask):
    (rows, columns) = np.nonzero(mask)
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


# Name -> annotated mask, what is painted in which colour, and a box if it is not the mask's.
THINGS = {
    "plate": (disc(40, 48, 30), [(disc(40, 48, 30), BLUE)]),
    "ball": (disc(100, 25, 12), [(disc(100, 25, 12), YELLOW)]),
    "circle": (disc(100, 70, 15), [(disc(100, 70, 14), GREEN)]),
    "square": (block(130, 10, 190, 70), [(block(130, 10, 190, 70), FADED)]),
    # The mask of one of two cars that stand side by side, and a box over a part of both.
    "car": (block(200, 20, 230, 50), [(block(200, 20, 260, 50), BLUE)], [200, 20, 250, 50]),
}
THINGS["square"][1].append((block(150, 30, 164, 45), STRIPE))
AGREEING = {
    name: THINGS[name][1][0][0].sum() / THINGS[name][0].sum()
    for name in ("plate", "ball", "circle")
}


def write_set(folder, images, masks=True):
    """Write a COCO folder; an image is a list of pairs: the name of a category and a thing."""
    names = sorted({name for things in images for name, _ in things})
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }
    folder.mkdir()
    for number, things in enumerate(images):
        pixels = np.full((*SIZE, 3), WALL, dtype=np.uint8)
        for name, (mask, painted, *boxes) in things:
            for where, colour in painted:
                pixels[where] = colour
            x1, y1, x2, y2 = (*boxes, box_of(mask))[0]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": number,
                    "category_id": names.index(name),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": encode_mask(mask) if masks else [],
                }
            )
        pixels[0, 0, 0] = number  # all images differ
        Image.fromarray(pixels).save(folder / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png"})
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return CocoInstances(write_set(tmp_path_factory.mktemp("coco") / "set", [THINGS.items()]))


def test_operations_agree_with_the_mask_or_not(source):
    picture = source.picture(random.Random(0), "object_counting")
    found = {each.name: each for each in picture.instances}
    assert found.keys() == THINGS.keys() and source.rejections == []
    for name, each in found.items():
        assert dict(each.ious).keys() == (
            {"SEGMENT_OBJECT_AT", "GET_PROPERTIES"} if name in AGREEING else set()
        )
        assert each.outlined == (name in AGREEING)
        assert list(dict(each.ious).values()) == pytest.approx(
            [AGREEING.get(name)] * len(each.ious)
        )
        assert each.area == THINGS[name][0].sum()
    assert AGREEING["circle"] < 0.9 and min(AGREEING.values()) > MIN_IOU
    colours = {name: each.colour for name, each in found.items()}
    named = {"plate": "blue", "ball": "yellow", "circle": "green"}
    assert colours == dict.fromkeys(THINGS, "") | named


def named_in(steps):
    """The things that steps are about, by their boxes and points."""
    for step in steps:
        box, point = step.arguments.get("bbox"), (step.arguments.get("y"), step.arguments.get("x"))
        (name,) = (
            name
            for name, (mask, *_) in THINGS.items()
            if (box == box_of(mask) if box else mask[point])
        )
        yield name


@pytest.mark.parametrize("sample_type", ["positive", "outcome_negative", "self_correction"])
@pytest.mark.parametrize("task", ["attribute_recognition", "geometric_comparison"])
def test_colour_shape_and_area_are_asked_where_both_agree(source, task, sample_type):
    asked = set()
    for index in range(40):
        example = generate_example(
            seed=0, index=index, task=task, sample_type=sample_type, source=source
        )
        names = set(named_in(step for step in example.trajectory if step.supervised))
        assert names <= AGREEING.keys()
        expected = min(AGREEING[name] for name in names)
        assert example.provenance["iou"] == pytest.approx(expected, abs=1e-4)
        asked |= names
        assert not {"square", "car"} & {*example.question.split("\n")[0].strip("?.").split()}
    assert asked == AGREEING.keys()


def test_places_are_asked_of_every_thing(source):
    asked = set()
    for index in range(60):
        example = generate_example(
            seed=0, index=index, task="spatial_reasoning", sample_type="positive", source=source
        )
        asked |= {name for name in THINGS if f"the {name}" in example.question}
    assert asked == THINGS.keys()


def test_a_box_without_a_mask_counts_as_the_mask(tmp_path):
    source = CocoInstances(write_set(tmp_path / "set", [THINGS.items()], masks=False))
    picture = source.picture(random.Random(0), "object_counting")
    found = {each.name: dict(each.ious) for each in picture.instances}
    # A disc fills pi / 4 of its box; the painted circle is smaller than its box says.
    assert found["plate"]["GET_PROPERTIES"] == pytest.approx(np.pi / 4, abs=0.03)
    assert found["circle"] == found["square"] == {}


def test_one_answer_has_at_most_half_of_a_task_and_both_are_reported(tmp_path):
    """Most things are black, as in photographs."""
    colours = [BLACK] * 9 + [BLUE, GREEN, YELLOW]
    images = [
        [("cup", (disc(x, 40, 25), [(disc(x, 40, 24), colour)]))]
        for x, colour in zip(range(40, 280, 20), colours, strict=True)
    ]
    config = DataPrepConfig(
        input=str(write_set(tmp_path / "set", images)),
        tasks=("attribute_recognition",),
        num_samples=24,
        num_workers=1,
        self_correction_ratio=0.0,
        difficulty=DifficultyConfig(correlation_samples=0),
    )
    summary = prepare_folder(config, tmp_path / "cota")
    top = summary["top_answer_by_task"]["attribute_recognition"]
    assert top["answer"] == "black" and 0.4 < top["share"] <= 0.5
    iou = disc(100, 40, 24).sum() / disc(100, 40, 25).sum()
    assert summary["iou_by_task"]["attribute_recognition"] == {
        "min": pytest.approx(iou, abs=1e-3),
        "mean": pytest.approx(iou, abs=1e-3),
    }
    (line,) = (line for line in format_summary(summary).splitlines() if "│ attribute" in line)
    assert line.replace("│", " ").split()[-2:] == [f"{100 * top['share']:.1f}", f"{iou:.2f}"]
