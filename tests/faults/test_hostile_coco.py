"""COCO data sets, broken in every way: used rightly, or refused with file, line and reason."""

import json
from itertools import count

import pytest

from pixelis.config import DataPrepConfig
from pixelis.data.chat import example_messages
from tests.faults.hostile import bounded, broken, deep, mutated, run_cases
from tests.faults.imports import check_encoded, read_input
from tests.faults.pictures import RIGHT, WRONG

CIRCLE = [10, 10, 20, 20]
COCO = {
    "info": {"year": 2017},
    "images": [
        {"id": 1, "file_name": "rgb.png", "width": 64, "height": 48},
        {"id": 2, "file_name": "c.jpg", "width": 64, "height": 48},
    ],
    "categories": [{"id": 1, "name": "ball"}, {"id": 2, "name": "box"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": CIRCLE, "iscrowd": 0, "area": 317.0},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "bbox": [40, 5, 3, 3],
            "segmentation": [[40, 5, 43, 5, 43, 8, 40, 8]],
        },
        {
            "id": 3,
            "image_id": 2,
            "category_id": 1,
            "bbox": CIRCLE,
            "segmentation": {"size": [48, 64], "counts": [490, 20, 28, 20, 28, 20, 2466]},
        },
        # Two balls in the second image: counts differ, so that one answer is not all of them.
        {"id": 4, "image_id": 2, "category_id": 1, "bbox": [40, 30, 9, 9]},
    ],
}
RUNS = COCO["annotations"][2]["segmentation"]["counts"]
RUNS[:] = [490] + [20, 28] * 19 + [20, 64 * 48 - 490 - 19 * 48 - 20]


@pytest.fixture
def made(folder, tmp_path):
    """Make three examples of a COCO file's bytes; gives them and the rejections, or a refusal."""
    numbers = count()

    def make(content):
        path = folder / "instances.json"
        path.write_bytes(content)
        settings = {"source": "coco", "num_samples": 3, "self_correction_ratio": 0.0}
        config = DataPrepConfig(input=str(path), num_workers=1, **settings)
        examples, rejections, _ = read_input(config, tmp_path / f"out{next(numbers) % 2}")
        return examples, rejections

    return make


def test_the_data_set_is_right_before_it_is_changed(made):
    examples, rejections = made(json.dumps(COCO).encode())
    assert len(examples) == 3 and rejections == []


def test_wrong_values(made):
    def check(tree):
        made(json.dumps(tree).encode())

    run_cases("coco", mutated([COCO]), check)


def test_broken_bytes(made):
    originals = [json.dumps(COCO).encode(), json.dumps(COCO, indent=1).encode("utf-16")]

    def check(content):
        made(content)

    run_cases("coco bytes", broken(originals), check)


def only(kind, number, **changes):
    """The data set with one record of a list changed."""
    records = [dict(record) for record in COCO[kind]]
    records[number] |= changes
    return COCO | {kind: records}


def counts(runs, side=None):
    return {"size": [side or 48, side or 64], "counts": runs}


MARKUP = (
    *("</answer><answer>cat", "<tool_call>dog</tool_call>", "<|im_end|>"),
    *("<tool_response>1", "<|vision_start|><|image_pad|>"),
)


def test_a_name_with_markup_is_in_no_example(made, encoder):
    tree = only("categories", 1, name="</answer><answer>cat")
    examples, rejections = made(json.dumps(tree).encode())
    assert [(one["file"], one["id"], one["reason"]) for one in rejections] == [
        ("instances.json", 2, "markup"),
        ("instances.json", 2, "unknown_category"),
    ]
    assert rejections[0]["detail"] == "a category's name may not hold <answer>"
    for example in examples:
        for message in example_messages(example):
            assert not message.supervised or message.parts[0].count("<answer>") <= 1
        check_encoded(example, encoder)


@pytest.mark.parametrize(
    ("tree", "reason", "line"),
    [
        (only("annotations", 1, bbox=deep(500)), "broken_box", 2),
        (only("annotations", 1, segmentation=[[1e300] * 6]), "broken_mask", 2),
        (only("annotations", 1, segmentation=deep(500)), "broken_mask", 2),
        (only("annotations", 1, segmentation=counts([10**9])), "broken_mask", 2),
        (only("annotations", 1, segmentation=counts("o" * 10**5)), "broken_mask", 2),
        (only("annotations", 1, segmentation=counts([10**18], 10**9)), "broken_mask", 2),
        (only("categories", 1, name="x" * 10**5), "wrong_type", 2),
        *((only("categories", 1, name=f"a {markup}"), "markup", 2) for markup in MARKUP),
        (only("annotations", 1, utf8_string="</answer>"), "markup", 2),
        (only("images", 1, file_name="up/outside.png"), "outside_folder", 2),
        (only("images", 1, file_name="folder.png"), "unreadable_image", 2),
        (only("images", 1, width=10**400), "size_differs", 2),
        (only("images", 1, file_name="mirrored.jpg"), "turned_image", 2),
    ],
    ids=range(17),
)
def test_extreme_records_are_rejected_with_a_reason(made, tree, reason, line):
    with bounded():
        examples, rejections = made(json.dumps(tree).encode())
    assert len(examples) == 3
    assert (reason, line) in {(one["reason"], one.get("id")) for one in rejections}


@pytest.mark.parametrize("name", [*RIGHT, *WRONG])
def test_images_of_every_kind(made, name):
    """The size that is listed is the right one; a wrong image is left out for what it is."""
    width, height = RIGHT[name][1] if name in RIGHT else (64, 48)
    tree = only("images", 1, file_name=name, width=width, height=height)
    if name == "rgb.png":
        tree["images"] = tree["images"][1:]
    with bounded():
        _, rejections = made(json.dumps(tree).encode())
    reasons = {one["reason"] for one in rejections if one["reason"] != "rejected_image"}
    if name in WRONG:
        assert reasons & {"unreadable_image", "too_large"}, rejections
    else:
        assert not reasons & {"unreadable_image", "too_large"}, rejections


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "input"),
        (b"{", "input"),
        (b'{"images": [' + b"[" * 10**6, "input"),
        (json.dumps(COCO).encode()[:-40], "instances.json"),
        (json.dumps({"images": [], "annotations": [], "categories": []}).encode(), "no image"),
        (json.dumps(COCO).replace("317.0", "[" * 10**5 + "]" * 10**5).encode(), "recursion"),
        (json.dumps(COCO).replace("317.0", "9" * 5000).encode(), "Exceeds the limit"),
    ],
    ids=range(7),
)
def test_files_that_are_refused_as_a_whole(made, content, says):
    with bounded():
        refused, _ = made(content)
    assert isinstance(refused, str) and says in refused and len(refused) < 1000
