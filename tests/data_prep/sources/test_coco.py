"""The source `coco` on a folder of real photographs (scikit-image's and scikit-learn's)."""

import copy
import json
import math
import os
import pickle
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage
from skimage import data as photographs
from skimage.filters import sobel
from skimage.segmentation import watershed
from sklearn.datasets import load_sample_images

from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.importing.values import RejectedError
from pixelis.data_prep.scenes import Item, Scene, render
from pixelis.data_prep.sources import open_source
from pixelis.data_prep.sources.coco import PAIR_TASKS, CocoInstances, image_size, is_coco
from pixelis.data_prep.sources.coco_annotations import check_annotation, clear_colour
from pixelis.errors import DataError
from pixelis.operations import execute
from pixelis.operations.masks import encode_mask

CATEGORIES = (
    "person", "helmet", "rocket", "flag", "cup", "saucer", "spoon", "cat", "eye", "nose",
    "tower", "pagoda", "tree", "flower", "small coin", "large coin",
)  # fmt: skip
NUMBERS = {name: number * 3 + 1 for number, name in enumerate(CATEGORIES)}
# Drawn around what the photographs show, x1, y1, x2, y2.
BOXES = {
    "astronaut": [
        ("person", (20, 10, 370, 512)), ("helmet", (278, 342, 512, 512)),
        ("rocket", (350, 0, 455, 287)), ("flag", (0, 0, 92, 300)),
    ],
    "coffee": [
        ("cup", (173, 15, 412, 308)), ("saucer", (80, 85, 478, 386)),
        ("spoon", (324, 65, 423, 324)),
    ],
    "chelsea": [
        ("cat", (0, 0, 400, 300)), ("eye", (134, 85, 205, 145)), ("eye", (293, 106, 347, 162)),
        ("nose", (228, 224, 289, 265)),
    ],
    "rocket": [
        ("rocket", (307, 127, 336, 407)), ("tower", (10, 0, 86, 405)),
        ("tower", (171, 122, 205, 405)), ("tower", (441, 122, 460, 405)),
        ("tower", (562, 0, 640, 405)),
    ],
}  # fmt: skip
LARGE_COIN = 1900  # pixels
# Cut where no coin is: x1, y1, x2, y2.
COIN_CROPS = (
    (0, 20, 185, 90), (245, 5, 384, 85), (240, 148, 384, 222), (138, 228, 273, 295),
    (10, 95, 130, 222), (240, 88, 384, 150), (8, 225, 140, 295),
)  # fmt: skip


def box_record(name, box):
    return {"category_id": NUMBERS[name], "bbox": xywh(box), "iscrowd": 0}


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def mask_record(name, mask, form):
    """An annotation from a mask, in one of COCO's three forms."""
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    record = box_record(name, (columns.start, rows.start, columns.stop, rows.stop))
    if form == "runs":
        record["segmentation"] = encode_mask(mask)
    elif form == "compressed":
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        record["segmentation"] = encoded | {"counts": encoded["counts"].decode()}
    else:
        # Left ends of the rows down, right ends up.
        left, right = [], []
        for y in range(rows.start, rows.stop):
            (x,) = np.nonzero(mask[y])
            if len(x):
                left.append((int(x[0]), y + 0.5))
                right.append((int(x[-1]) + 1, y + 0.5))
        points = left + right[::-1]
        record["segmentation"] = [[float(part) for point in points for part in point]]
    return record | {"area": int(mask.sum())}


def coins():
    """The photograph of coins, and the label of each: flooded from bright and dark seeds."""
    gray = photographs.coins()
    seeds = np.where(gray < 30, 1, np.where(gray > 150, 2, 0))
    bright = ndimage.binary_fill_holes(watershed(sobel(gray), seeds) == 2)
    labels, _ = ndimage.label(ndimage.binary_opening(bright, iterations=2))
    sizes = np.bincount(labels.ravel())
    labels[np.isin(labels, np.flatnonzero(sizes < 500))] = 0
    return gray, labels


def shots():
    """Name, pixels and annotations of each photograph."""
    for name, boxes in BOXES.items():
        yield name, getattr(photographs, name)(), [box_record(*box) for box in boxes]
    china, flower = load_sample_images().images
    yield (
        "china",
        china,
        [
            box_record("pagoda", (73, 26, 361, 397)),
            box_record("tree", (546, 134, 640, 427)),
            box_record("tree", (400, 260, 546, 427)) | {"iscrowd": 1},
        ],
    )
    petals = ndimage.binary_opening(flower[..., 0].astype(int) - flower[..., 2] > 60, iterations=3)
    labels, _ = ndimage.label(petals)
    sizes = np.bincount(labels.ravel())
    first, second = np.argsort(sizes[1:])[::-1][:2] + 1
    filled = [ndimage.binary_fill_holes(labels == label) for label in (first, second)]
    yield (
        "flowers",
        flower,
        [
            mask_record("flower", mask, form)
            for mask, form in zip(filled, ("runs", "compressed"), strict=True)
        ],
    )
    yield "flower", flower[:360], [mask_record("flower", filled[0][:360], "polygon")]
    gray, coin_labels = coins()
    for number, (x1, y1, x2, y2) in enumerate(COIN_CROPS):
        crop = coin_labels[y1:y2, x1:x2]
        records = []
        for place, label in enumerate(np.unique(crop[crop > 0])):
            mask = crop == label
            name = "large coin" if mask.sum() > LARGE_COIN else "small coin"
            records.append(mask_record(name, mask, ("runs", "compressed", "polygon")[place % 3]))
        yield f"coins{number}", np.stack([gray[y1:y2, x1:x2]] * 3, axis=2), records


def write_folder(folder, named_shots):
    """A data set as COCO lays it out: `annotations/instances_photos.json` and `photos/`."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "photos").mkdir()
    content = {
        "info": {"description": "Größe: µ"},  # not ASCII: bytes and characters differ
        "images": [],
        "annotations": [],
        "categories": [{"id": NUMBERS[name], "name": name} for name in CATEGORIES],
    }
    for number, (name, pixels, records) in enumerate(named_shots):
        file = f"{name}.{'jpg' if number % 2 else 'png'}"
        Image.fromarray(pixels).save(folder / "photos" / file, quality=95)
        height, width = pixels.shape[:2]
        image = {"id": 100 + number, "file_name": file, "width": width, "height": height}
        content["images"].append(image)
        for record in records:
            record = {"id": len(content["annotations"]) + 1, "image_id": 100 + number, **record}
            content["annotations"].append(record)
    write_json(folder, content, ensure_ascii=False)
    return content


def write_json(folder, content, ensure_ascii=True):
    file = folder / "annotations" / "instances_photos.json"
    file.write_text(json.dumps(content, ensure_ascii=ensure_ascii), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco") / "set"
    write_folder(folder, shots())
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return json.loads((folder / "annotations/instances_photos.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def source(folder):
    return CocoInstances(folder, None)


@pytest.fixture
def broken(folder, content, tmp_path):
    """Open a copy of a part of the data set whose content is changed first."""
    shutil.copytree(folder, tmp_path / "set", copy_function=os.link)
    kept = {
        record["id"]
        for record in content["images"]
        if record["file_name"] in ("astronaut.png", "flower.png", "rocket.jpg")
    }
    content = content | {
        "images": [record for record in content["images"] if record["id"] in kept],
        "annotations": [r for r in content["annotations"] if r["image_id"] in kept],
    }
    (tmp_path / "set/annotations/instances_photos.json").unlink()  # a link to the whole one

    def open_changed(change):
        changed = copy.deepcopy(content)
        change(changed, tmp_path / "set")
        write_json(tmp_path / "set", changed)
        return CocoInstances(tmp_path / "set", None)

    return open_changed


def reasons(source):
    return dict(Counter(rejection.reason for rejection in source.rejections))


def boxes_of(content, file, name=None):
    """The oracle: boxes of a file's annotations, by the JSON alone."""
    (number,) = (image["id"] for image in content["images"] if image["file_name"] == file)
    return [
        [x, y, x + w, y + h]
        for record in content["annotations"]
        if record["image_id"] == number and name in (None, CATEGORIES[record["category_id"] // 3])
        for x, y, w, h in [record["bbox"]]
    ]


def draw_all(source, task="object_counting"):
    """Every picture that suits a task, by file."""
    pictures = {}
    for seed in range(12 * len(source._suited[task])):
        picture = source.picture(random.Random(seed), task)
        pictures[dict(picture.origin)["file"]] = picture
    return pictures


def test_it_is_opened_by_its_name(folder):
    source = open_source("coco", path=folder)
    assert source.name == "coco"
    assert source.tasks == ("attribute_recognition", "object_counting", *PAIR_TASKS)
    assert source.rejections == []


def test_things_are_what_is_annotated(source, content):
    pictures = draw_all(source)
    assert len(pictures) == len(content["images"])
    for file, picture in pictures.items():
        (image,) = picture.draw()
        told = [list(thing.extent) for thing in picture.instances]
        assert told == [
            box for box in boxes_of(content, file) if file != "china.png" or box in told
        ]
        assert picture.axes == ("center x", "center y")
        assert picture.min_distance == max(14.0, 0.05 * max(image.size))
        for thing in picture.instances:
            x1, y1, x2, y2 = thing.location.box
            assert thing.location.name == f"[{x1}, {y1}, {x2}, {y2}]"
            assert x1 <= thing.location.point[0] < x2 and y1 <= thing.location.point[1] < y2
            assert thing.position == ((x1 + x2) // 2, (y1 + y2) // 2)
            assert thing.cell is None and not thing.text and thing.occluded == 0.0
            assert thing.small == ((x2 - x1) * (y2 - y1) < 0.02 * image.width * image.height)


def test_a_crowd_is_not_counted_and_no_picture_shows_all_of_a_colour(source):
    pictures = draw_all(source)
    assert pictures["china.png"].uncounted == {"tree", ""}
    assert [thing.name for thing in pictures["china.png"].instances] == ["pagoda", "tree"]
    assert [thing.name for thing in pictures["china.png"].unique()] == ["pagoda"]
    assert all("" in picture.uncounted for picture in pictures.values())
    assert {thing.name for thing in pictures["chelsea.png"].unique()} == {"cat", "nose"}


def test_masks_come_from_every_form(source):
    gray, labels = coins()
    for (x1, y1, x2, y2), number in zip(COIN_CROPS, range(len(COIN_CROPS)), strict=True):
        picture = next(p for f, p in draw_all(source).items() if f.startswith(f"coins{number}."))
        crop = labels[y1:y2, x1:x2]
        true = [int((crop == label).sum()) for label in np.unique(crop[crop > 0])]
        # Polygons are drawn through the middle of the pixels, so their area is near, not equal.
        assert [thing.area for thing in picture.instances] == pytest.approx(true, rel=0.03)
        for thing, label in zip(picture.instances, np.unique(crop[crop > 0]), strict=True):
            assert crop[thing.location.point[1], thing.location.point[0]] == label


def test_what_is_outlined_is_found_by_region_growing(source):
    outlined = 0
    for picture in draw_all(source).values():
        for thing in picture.instances:
            x, y = thing.location.point
            result = execute("SEGMENT_OBJECT_AT", {"x": x, "y": y}, picture.draw()).result
            if thing.outlined:
                outlined += 1
                ratio = result["area"] / thing.area
                assert 0.75 <= ratio <= 1 / 0.75
                assert (
                    coco_mask.iou(*[[xywh(b)] for b in (result["bbox"], thing.extent)], [0]) >= 0.75
                )
    assert outlined >= 8


def test_the_free_spots_touch_nothing_that_is_annotated(source, content):
    free = 0
    for file, picture in draw_all(source).items():
        for location in picture.free:
            free += 1
            x1, y1, x2, y2 = location.box
            for bx1, by1, bx2, by2 in boxes_of(content, file):
                assert x2 <= bx1 or bx2 <= x1 or y2 <= by1 or by2 <= y1
            assert 0 <= x1 < x2 <= picture.draw()[0].width
            assert 0 <= y1 < y2 <= picture.draw()[0].height
    assert free > 30


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        ([(215, 35, 40)] * 7 + [(35, 70, 215)] * 3, "red"),
        ([(215, 35, 40)] * 5 + [(35, 70, 215)] * 4, ""),
        ([(190, 190, 190)] * 9, ""),  # nearest to pink
        ([(250, 160, 190)] * 9, "pink"),
        ([(128, 128, 128)] * 9, "gray"),
    ],
)
def test_a_colour_is_told_where_it_is_clear(colours, expected):
    assert clear_colour(np.array(colours, dtype=np.int16)) == expected


# Where the areas of two coins are measured, there is no third thing to look at instead.
IMPOSSIBLE = {("geometric_comparison", "trap_perceptual")}


@pytest.fixture(scope="module")
def examples(source):
    types = ("positive", "outcome_negative", "trap_logical", "trap_perceptual", "self_correction")
    return [
        generate_example(seed=3, index=index, task=task, sample_type=kind, source=source)
        for task in source.tasks
        for kind in types
        if (task, kind) not in IMPOSSIBLE
        for index in range(6)
    ]


def test_every_task_gives_every_type(examples, source):
    kinds = Counter((example.task, example.sample_type) for example in examples)
    assert len(kinds) == 5 * len(source.tasks) - len(IMPOSSIBLE)
    assert set(kinds.values()) == {6}
    assert {example.provenance["source"] for example in examples} == {"coco"}


def test_replay_gives_the_recorded_results(examples):
    for example in examples:
        for step in example.trajectory:
            again = execute(step.operation, step.arguments, example.images)
            assert again.result == step.result


def test_the_answers_agree_with_the_annotations(examples, content):
    """By the JSON and the words of the question alone."""
    for example in examples:
        question, file = example.question.split("\n")[0], example.provenance["file"]
        if example.task == "object_counting":
            words = question.replace("people", "person")
            name = max((each for each in CATEGORIES if each in words), key=len)
            assert example.answer == str(len(boxes_of(content, file, name))), question
        if example.task == "geometric_comparison":
            areas = {}
            for name in CATEGORIES:
                if f"the {name}" in question:
                    ((x1, y1, x2, y2),) = boxes_of(content, file, name)
                    areas[name] = (x2 - x1) * (y2 - y1)
            best = max if "largest" in question else min
            assert example.answer == best(areas, key=areas.get)
        if example.task == "spatial_reasoning" and "most" in question:
            axis = 0 if "leftmost" in question or "rightmost" in question else 1
            best = min if "leftmost" in question or "topmost" in question else max
            named = [name for name in CATEGORIES if f"the {name}" in question]
            middles = {}
            for name in named:
                (box,) = boxes_of(content, file, name)
                middles[name] = box[axis] + box[axis + 2]
            assert example.answer == best(middles, key=middles.get)


def test_examples_are_a_function_of_seed_and_files(source, folder, examples):
    fresh = CocoInstances(folder, None)
    copied = pickle.loads(pickle.dumps(source))
    assert copied.tasks == source.tasks
    # In another order than before, so that what is kept from earlier pictures shows.
    for example in examples[::-7]:
        for other in (fresh, copied):
            again = generate_example(
                seed=3, index=example.provenance["index"], task=example.task,
                sample_type=example.sample_type, source=other,
            )  # fmt: skip
            assert again == example


def test_an_image_is_annotated_once(source):
    pictures = [source.picture(random.Random(1), "object_counting") for _ in range(3)]
    assert pictures[0] is pictures[1] is pictures[2]


# Opening: what is found where.


def test_coco_is_told_from_other_json_by_content(folder, tmp_path):
    assert is_coco(folder)
    assert is_coco(folder / "annotations")
    assert is_coco(folder / "annotations" / "instances_photos.json")
    for number, text in enumerate(
        ("", "[]", "{}", '{"images": [], "annotations": []}', '[{"images": [], "x": 1}]',
         '{"images": 1, "annotations": 2, "categories": 3}', "\x00\x01")
    ):  # fmt: skip
        file = tmp_path / f"{number}.json"
        file.write_text(text)
        assert not is_coco(file)
    assert not is_coco(tmp_path)
    assert not is_coco(tmp_path / "absent")


def test_a_file_with_a_mark_of_its_encoding_is_read(folder, content, tmp_path):
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    assert is_coco(file)
    marked = CocoInstances(file, folder / "photos")
    assert len(draw_all(marked)) == len(content["images"])


def test_the_file_must_be_there_and_be_the_only_one(folder, tmp_path):
    with pytest.raises(DataError, match="must hold one COCO JSON, .* it holds none"):
        CocoInstances(tmp_path, None)
    shutil.copytree(folder, tmp_path / "two")
    first = tmp_path / "two/annotations/instances_photos.json"
    shutil.copy(first, tmp_path / "two/other.json")
    with pytest.raises(DataError, match="it holds other.json, annotations"):
        CocoInstances(tmp_path / "two", None)
    assert CocoInstances(first, None).tasks


@pytest.mark.parametrize(
    "place", [".", "images", "photos", "annotations", "annotations/images", "annotations/photos"]
)
def test_images_are_found_near_the_json(folder, tmp_path, place):
    shutil.copytree(folder / "annotations", tmp_path / "annotations")
    shutil.copytree(folder / "photos", tmp_path / place, dirs_exist_ok=True)
    assert CocoInstances(tmp_path, None).folder.resolve() == (tmp_path / place).resolve()


@pytest.fixture
def home(folder, tmp_path):
    """Data that came from elsewhere, in `download`, beside a folder of one's own images."""
    (tmp_path / "home/download").mkdir(parents=True)
    shutil.copytree(folder / "photos", tmp_path / "home/private")
    content = json.loads((folder / "annotations/instances_photos.json").read_text("utf-8"))
    for record in content["images"]:
        record["file_name"] = f"private/{record['file_name']}"
    (tmp_path / "home/download/instances_...json").write_text(json.dumps(content), "utf-8")
    return tmp_path / "home"


@pytest.mark.parametrize("given", ["download", "download/instances_...json"])
def test_no_image_is_looked_for_outside_of_what_is_named(home, given):
    with pytest.raises(DataError, match=r"no image of COCO file .* name their folder \(image_f"):
        CocoInstances(home / given, None)
    (home / "download/images").symlink_to(home)  # leads out as well
    with pytest.raises(DataError, match="no image of COCO file"):
        CocoInstances(home / given, None)
    # The user may name what is elsewhere.
    assert CocoInstances(home / given, home).tasks


@pytest.mark.parametrize("place", ["instances.json", "annotations/instances.json"])
def test_a_link_to_a_file_elsewhere_is_refused_but_where_it_is_named(folder, tmp_path, place):
    linked = tmp_path / "linked"
    shutil.copytree(folder / "photos", linked / "photos")
    (linked / place).parent.mkdir(exist_ok=True)
    (linked / place).symlink_to(folder / "annotations/instances_photos.json")
    with pytest.raises(
        DataError, match=r"instances.json is a link that leaves the folder .*linked"
    ):
        CocoInstances(linked, None)
    assert CocoInstances(linked / place, linked / "photos").tasks


@pytest.mark.parametrize("given", ["annotations", "annotations/instances_photos.json", "."])
def test_images_beside_annotations_are_found_wherever_the_data_set_is_named(
    folder, monkeypatch, given
):
    assert CocoInstances(folder / given, None).folder.resolve() == (folder / "photos").resolve()
    monkeypatch.chdir(folder)
    assert CocoInstances(Path(given), None).folder.resolve() == (folder / "photos").resolve()


def test_an_image_folder_must_be_one_and_hold_images(folder, tmp_path):
    file = folder / "annotations/instances_photos.json"
    with pytest.raises(DataError, match="image_folder .*absent is not a folder"):
        CocoInstances(file, tmp_path / "absent")
    with pytest.raises(DataError, match="leaves no image to ask about; rejected: rejected_image"):
        CocoInstances(file, tmp_path)
    shutil.copy(file, tmp_path / "alone.json")
    with pytest.raises(DataError, match=r"no image of COCO file .* name their folder \(image_f"):
        CocoInstances(tmp_path / "alone.json", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting"),
        ('{"images": [1 2]}', "cannot be read: Expecting ',' delimiter: line 1 column 15"),
        ("[]", "has no list images"),
        ('{"images": [], "annotations": []}', "has no list categories"),
        ('{"images": ' + "[" * 100_000, "cannot be read: maximum recursion"),
        ('{"x": ' + "9" * 5000 + "}", "cannot be read: Exceeds the limit"),
        ("{\xff", "cannot be read: 'utf-8' codec"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    file = tmp_path / "broken.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=rf"COCO file .*broken.json.*{message}"):
        CocoInstances(file, None)


def test_an_image_that_changes_or_vanishes_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    source = CocoInstances(tmp_path / "set", None)
    picture = source.picture(random.Random(0), "object_counting")
    file = tmp_path / "set/photos" / dict(picture.origin)["file"]
    Image.new("RGB", (8, 8)).save(file)
    with pytest.raises(DataError, match="image .* changed since the data set was opened"):
        picture.draw()
    shutil.rmtree(tmp_path / "set/photos")
    with pytest.raises(DataError, match="image .* cannot be used: .* does not exist in the folder"):
        picture.draw()


def test_a_task_that_no_image_suits_is_refused(source):
    with pytest.raises(DataError, match="coco has no image for 'temporal_tracking'; tasks: attri"):
        source.picture(random.Random(0), "temporal_tracking")


# Rejections.

IMAGE = 106  # flower.png, 640 x 360, with one annotation


def annotation(content):
    return next(record for record in content["annotations"] if record["image_id"] == IMAGE)


def image(content):
    return next(record for record in content["images"] if record["id"] == IMAGE)


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"image_id": 7}, "unknown_image", "no image has the id 7"),
        ({"image_id": [7]}, "wrong_type", "an id must be an integer or a text, got [7]"),
        ({"category_id": 7000}, "unknown_category", "no category has the id 7000"),
        ({"category_id": None}, "wrong_type", "an id must be an integer or a text, got None"),
        ({"bbox": [600, 10, 50, 50]}, "broken_box", "inside 640 x 360, got [600, 10, 50, 50]"),
        ({"bbox": [-5, 10, 50, 50]}, "broken_box", "got [-5, 10, 50, 50]"),
        ({"bbox": [10, 10, 0, 50]}, "broken_box", "got [10, 10, 0, 50]"),
        ({"bbox": [10, math.nan, 5, 5]}, "broken_box", "got [10, nan, 5, 5]"),
        ({"bbox": [10, 10, 10**400, 5]}, "broken_box", "bbox must be"),
        ({"bbox": [10, 10, True, 5]}, "broken_box", "got [10, 10, True, 5]"),
        ({"bbox": [10, 10, 5]}, "broken_box", "got [10, 10, 5]"),
        ({"bbox": None}, "broken_box", "got None"),
        ({"segmentation": [[1, 2, 3, 4]]}, "broken_mask", "a polygon must be an even number"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "broken_mask", "coordinates near the image"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "broken_mask", "got 1"),
        ({"segmentation": "none"}, "broken_mask", "polygons or counts of size [360, 640], got 'n"),
        ({"segmentation": [[-9.0, -9, -8, -9, -8, -8]]}, "broken_mask", "the segmentation reaches"),
        ({"segmentation": [[1, 1, 30, 1, 30, 30]]}, "broken_mask", "the segmentation reaches over"),
        ({"segmentation": {"size": [1, 1], "counts": [1]}}, "broken_mask", "of size [360, 640]"),
        ({"segmentation": {"size": [360, 640], "counts": [9, 9]}}, "broken_mask", "sum to 230400"),
        ({"segmentation": {"size": [360, 640], "counts": [-1, 230401]}}, "broken_mask", "counts"),
        ({"segmentation": {"size": [360, 640], "counts": "oooo"}}, "broken_mask", "counts must be"),
        ({"segmentation": {"size": [360, 640], "counts": "\u20ac"}}, "broken_mask", "counts"),
        ({"segmentation": {"size": [360, 640], "counts": "0" * 20}}, "broken_mask", "counts"),
        ({"segmentation": {"size": [360, 640], "counts": None}}, "broken_mask", "got None"),
        (None, "wrong_type", "a record must be an object, got None"),
    ],
)  # fmt: skip
def test_a_wrong_annotation_is_left_out_and_counted(broken, change, reason, detail):
    def apply(content, folder):
        if change is None:
            content["annotations"][content["annotations"].index(annotation(content))] = None
        else:
            annotation(content).update(change)

    source = broken(apply)
    assert reasons(source) == {reason: 1}
    (rejection,) = source.rejections
    assert rejection.file == "instances_photos.json"
    assert rejection.reason == reason
    assert detail in rejection.detail
    assert "flower.png" not in draw_all(source)


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"file_name": "absent.png"}, "no_image", "'absent.png' does not exist in the folder"),
        ({"file_name": "../secret.png"}, "outside_folder", "'../secret.png' lies outside"),
        ({"file_name": "text.png"}, "unreadable_image", "'text.png': "),
        ({"file_name": "cut.png"}, "unreadable_image", "'cut.png': "),
        ({"file_name": "cut.jpg"}, "unreadable_image", "'cut.jpg': an image does not open"),
        ({"file_name": "large.png"}, "too_large", "may have at most 25000000 pixels, got 5001 x"),
        ({"file_name": "turned.jpg"}, "turned_image", "'turned.jpg' has EXIF orientation 3"),
        ({"file_name": "astronaut.png"}, "duplicate_id", "'astronaut.png' is listed twice"),
        ({"file_name": None}, "wrong_type", "an image's path must be a text, got None"),
        ({"width": 360, "height": 640}, "size_differs", "is (640, 360), listed as (360, 640)"),
        ({"width": "640"}, "size_differs", "listed as ('640', 360)"),
        ({"id": 100}, "duplicate_id", "image 100 is listed twice"),
        ({"id": 1.5}, "wrong_type", "an id must be an integer or a text, got 1.5"),
    ],
)  # fmt: skip
def test_a_wrong_image_is_left_out_and_counted(broken, change, reason, detail):
    def apply(content, folder):
        photos = folder / "photos"
        flower = Image.open(photos / "flower.png")
        (folder / "secret.png").write_bytes((photos / "flower.png").read_bytes())
        (photos / "text.png").write_text("no image")
        (photos / "cut.png").write_bytes((photos / "flower.png").read_bytes()[:90_000])
        (photos / "cut.jpg").write_bytes((photos / "flowers.jpg").read_bytes()[:30_000])
        Image.new("1", (5001, 5000)).save(photos / "large.png")
        exif = Image.Exif()
        exif[0x0112] = 3
        flower.save(photos / "turned.jpg", exif=exif)
        image(content).update(change)

    source = broken(apply)
    first = source.rejections[0]
    assert first.reason == reason
    assert detail in first.detail
    # Its annotation is turned away with it.
    assert reasons(source) in ({reason: 1, "rejected_image": 1}, {reason: 1, "unknown_image": 1})


def test_a_photograph_that_stood_on_its_side_has_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("side.jpg", "side.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == (30, 40)
    Image.new("RGB", (40, 40)).save(tmp_path / "square.jpg", exif=exif)
    with pytest.raises(RejectedError, match="has EXIF orientation 6; save it as 1"):
        image_size(tmp_path / "square.jpg")


def test_a_jpeg_with_something_behind_it_is_read(folder, tmp_path):
    file = tmp_path / "long.jpg"
    file.write_bytes((folder / "photos/flowers.jpg").read_bytes() + b"behind")
    assert image_size(file) == (640, 427)


@pytest.mark.parametrize(
    ("category", "reason", "detail"),
    [
        ({"id": NUMBERS["flower"], "name": "rose"}, "duplicate_id", "category 40 is listed twice"),
        ({"id": {}, "name": "rose"}, "wrong_type", "an id must be an integer or a text, got {}"),
        ({"id": 900, "name": " "}, "wrong_type", "a category's name must be 1 to 100 printable"),
        ({"id": 900, "name": "a\x1bb"}, "wrong_type", "got 'a\\x1bb'"),
        ({"id": 900, "name": "a" * 101}, "wrong_type", "1 to 100 printable characters"),
        ({"id": 900}, "wrong_type", "got None"),
        (["rose"], "wrong_type", "a record must be an object, got ['rose']"),
    ],
)
def test_a_wrong_category_is_left_out_and_counted(broken, category, reason, detail):
    source = broken(lambda content, folder: content["categories"].append(category))
    assert reasons(source) == {reason: 1}
    assert detail in source.rejections[0].detail
    (rejection,) = source.rejections
    own = category.get("id") if isinstance(category, dict) else None
    expected = (own, None) if isinstance(own, int) else (None, len(CATEGORIES) + 1)
    assert (rejection.id, rejection.line) == expected


def test_of_a_kind_with_a_wrong_annotation_nothing_is_counted(broken):
    def change(content, folder):
        towers = [r for r in content["annotations"] if r["category_id"] == NUMBERS["tower"]]
        towers[1]["bbox"] = [0, 0, 0, 0]

    source = broken(change)
    assert reasons(source) == {"broken_box": 1}
    picture = draw_all(source)["rocket.jpg"]
    assert len(picture.instances) == 4
    assert picture.uncounted == {"tower", ""}


@pytest.mark.parametrize(
    ("bbox", "polygon", "box"),
    [
        # Less than a pixel, and a line: their masks hold no pixel.
        ([10.2, 10.2, 0.5, 0.5], [10.2, 10.2, 10.7, 10.2, 10.7, 10.7], (10, 10, 11, 11)),
        ([10.2, 5, 0.4, 20], [10.2, 5, 10.6, 5, 10.6, 25, 10.2, 25], (10, 5, 11, 25)),
        ([10, 10, 1, 1], [10, 10, 11, 10, 11, 11, 10, 11], (10, 10, 11, 11)),
        ([10.3, 10.3, 1.5, 1], [10.3, 10.3, 11.8, 10.3, 11.8, 11.3], (10, 10, 12, 12)),
        ([10.9, 5, 1.2, 20], [10.9, 5, 12.1, 5, 12.1, 25, 10.9, 25], (10, 5, 13, 25)),
    ],
)
def test_a_mask_as_thin_as_a_pixel_is_not_broken(bbox, polygon, box):
    found = check_annotation({"bbox": bbox, "segmentation": [polygon]}, "", (50, 31))
    assert (found.use, found.box) == ("object", box)
    if found.runs is not None:
        assert coco_mask.area({"size": [31, 50], "counts": found.runs}) > 0


def test_rounding_errors_at_the_edge_are_no_errors():
    raw = {"bbox": [-0.4, 0.0, 50.3, 30.9], "segmentation": []}
    assert check_annotation(raw, "", (50, 31)).box == (0, 0, 50, 31)
    inner = raw | {"bbox": [10.6, 3.2, 5.1, 4.1]}
    assert check_annotation(inner, "", (50, 31)).box == (10, 3, 16, 8)
    with pytest.raises(RejectedError, match="bbox must be .x, y, width, height. inside 50 x 31"):
        check_annotation(raw | {"bbox": [49.5, 0.0, 3, 3]}, "", (50, 31))


def test_nothing_left_is_an_error(broken):
    with pytest.raises(DataError, match="leaves no image to ask about; rejected: none"):
        broken(lambda content, folder: content["annotations"].clear())


# Texts, as in COCO-Text.


@pytest.fixture
def written(tmp_path):
    """Two images in which a text is written, by the font that READ_TEXT always reads."""

    def write(*records):
        scene = Scene((Item((1, 1), text="M4"), Item((2, 3), text="K7")), 0)
        image = render(scene)
        places = [Item((1, 1)).box, Item((2, 3)).box]
        shots = []
        for record in records:
            texts = [
                box_record("cup", box) | {"utf8_string": said, "legibility": "legible"} | more
                for box, (said, more) in zip(places, record, strict=True)
            ]
            shots.append(texts)
        named = [(f"sign{n}", np.asarray(image), texts) for n, texts in enumerate(shots)]
        write_folder(tmp_path / "texts", named)
        return CocoInstances(tmp_path / "texts", None)

    return write


def test_texts_are_asked_for_where_all_are_legible(written):
    source = written(
        [("M4", {}), ("K7", {})],
        [("M4", {}), ("K7", {"legibility": "illegible"})],
        [("M4", {}), ("", {})],
        [("M4", {}), ("K7", {"bbox": [0, 0, 0, 0]})],
        [("M4", {}), ("K7", {"iscrowd": 1})],
    )
    assert source.tasks == ("text_extraction",)
    assert reasons(source) == {"broken_box": 1}
    for index in range(5):
        example = generate_example(
            seed=1, index=index, task="text_extraction", sample_type="positive", source=source
        )
        assert example.provenance["file"] == "sign0.png"
        assert example.answer == "M4 K7"
    (thing, _) = source.picture(random.Random(0), "text_extraction").instances
    assert (thing.name, thing.kind, thing.text) == ("text", "text", "M4")


def test_a_text_with_markup_is_not_told_and_its_image_not_asked_about(written):
    source = written(
        [("M4", {}), ("K7", {})],
        [("M4", {}), ("</answer><answer>1", {})],
        [("M4", {}), ("<tool_call>", {"legibility": "illegible"})],  # never told anyway
    )
    assert reasons(source) == {"markup": 1}
    (rejection,) = source.rejections
    assert (rejection.file, rejection.id) == ("instances_photos.json", 4)
    assert rejection.detail == "utf8_string may not hold <answer>"
    assert len(source._suited["text_extraction"]) == 1


# pycocotools checks no runs: wrong ones would be written outside of its memory.

RUNS = st.fixed_dictionaries(
    {
        "size": st.just([62, 144]),
        "counts": st.one_of(
            st.lists(st.integers(-1, 9000), max_size=6),
            st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12),
        ),
    }
)
POLYGONS = st.lists(st.lists(st.floats(-200, 300), min_size=4, max_size=12), max_size=3)


@given(st.one_of(RUNS, POLYGONS))
def test_a_segmentation_is_a_mask_inside_the_image_or_rejected(segmentation):
    record = {"bbox": [1, 1, 140, 60], "segmentation": segmentation}
    try:
        runs = check_annotation(record, "", (144, 62)).runs
    except RejectedError as error:
        assert error.reason == "broken_mask"
    else:
        if runs is not None:
            mask = coco_mask.decode({"size": [62, 144], "counts": runs})
            assert mask.shape == (62, 144) and mask.any()
