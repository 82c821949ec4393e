import random
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from pixelis.data_prep.annotated_image import Instance, Location
from pixelis.data_prep.scenes import (
    CELLS,
    RADII,
    SIDE,
    Item,
    Scene,
)
from pixelis.data_prep.sources.drawn import DrawnScenes, location_of, to_picture
from pixelis.data_prep.tasks import TASKS
from pixelis.operations.pixels import PALETTE, draw_shape

PICTURES_PER_TASK = 50


def pictures_of(task):
    return [
        DrawnScenes().picture(random.Random(f"{task}:{seed}"), task)
        for seed in range(PICTURES_PER_TASK)
    ]


@pytest.fixture(scope="module")
def drawn():
    """Pictures for every task, each with the pixels of its frames."""
    return {
        task: [(picture, [np.asarray(image) for image in picture.draw()]) for picture in pictures]
        for task, pictures in ((task, pictures_of(task)) for task in TASKS)
    }


@pytest.fixture(scope="module")
def every(drawn):
    return [pair for pairs in drawn.values() for pair in pairs]


@lru_cache
def whole_area(shape, size):
    canvas = Image.new("L", (60, 60), 0)
    draw_shape(ImageDraw.Draw(canvas), shape, 30, 30, RADII[size], 1)
    return int(np.asarray(canvas).sum())


def seen(pixels, instance):
    """The pixels of a instance's very colour, within reach of its cell."""
    x1, y1, x2, y2 = instance.location.box
    mask = (pixels == PALETTE[instance.colour]).all(axis=2)
    reach = np.zeros_like(mask)
    # Of two that overlap, each reaches four pixels into the other's cell; others stay inside.
    reach[max(0, y1 - 4) : y2 + 4, max(0, x1 - 4) : x2 + 4] = True
    rows, columns = np.nonzero(mask & reach)
    x1, y1, x2, y2 = instance.extent
    inside = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
    return rows[inside], columns[inside]


def test_area_extent_and_point_are_those_of_the_visible_pixels(every):
    for picture, frames in every:
        for instance in picture.objects():
            rows, columns = seen(frames[0], instance)
            assert len(rows) == instance.area
            extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert extent == instance.extent
            x, y = instance.location.point
            assert tuple(frames[0][y, x]) == PALETTE[instance.colour]
        for colour, rgb in PALETTE.items():  # no pixel is left over
            shown = int((frames[0] == rgb).all(axis=2).sum())
            assert shown == sum(each.area for each in picture.instances if each.colour == colour)


def test_what_is_occluded_is_the_share_that_is_not_seen(every):
    covered = 0
    for picture, _ in every:
        behind = [occlusion.back for occlusion in picture.occlusions]
        for instance in picture.objects():
            areas = [whole_area(instance.kind, size) for size in RADII]
            if instance in behind:
                covered += 1
                assert 0 < instance.occluded < 0.5
                assert instance.occluded == pytest.approx(1 - instance.area / areas[-1])
            else:
                assert instance.occluded == 0
                assert instance.area in areas
                assert instance.small == (instance.area == areas[0])
    assert covered > 20


def test_who_is_in_front_is_seen_where_the_two_meet(every):
    for picture, frames in every:
        for occlusion in picture.occlusions:
            x, y = occlusion.location.point
            assert tuple(frames[0][y, x]) == PALETTE[occlusion.front.colour]
            assert occlusion.front.occluded == 0 < occlusion.back.occluded
            assert occlusion.front.colour != occlusion.back.colour
            assert "between" in occlusion.location.name


def test_free_locations_show_background_alone(every):
    for picture, frames in every:
        cells = {instance.cell for instance in picture.instances}
        assert {location.name for location in picture.free} == {
            f"row {row + 1} column {column + 1}"
            for row, column in CELLS
            if (row, column) not in cells
        }
        for location in picture.free:
            x1, y1, x2, y2 = location.box
            crop = frames[0][y1:y2, x1:x2].astype(int)
            assert crop.min() > 160 and np.ptp(crop, axis=2).max() == 0


def ink(pixels, instance):
    x1, y1, x2, y2 = instance.location.box
    return pixels[y1:y2, x1:x2].max(axis=2) < 110


def tight(mask):
    rows, columns = np.nonzero(mask)
    return mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@lru_cache
def printed(character):
    canvas = Image.new("L", (40, 40), 0)
    ImageDraw.Draw(canvas).text((10, 10), character, fill=255, font=ImageFont.load_default(15))
    return tight(np.asarray(canvas) > 110)


def test_texts_are_printed_as_the_annotation_has_them(drawn):
    count = 0
    for picture, frames in drawn["text_extraction"]:
        for instance in (instance for instance in picture.instances if instance.name == "text"):
            mask = ink(frames[0], instance)
            inked = np.flatnonzero(mask.any(axis=0))
            groups = np.split(inked, np.flatnonzero(np.diff(inked) > 1) + 1)
            assert len(groups) == len(instance.text) == 2
            for columns, character in zip(groups, instance.text, strict=True):
                glyph = tight(mask[:, columns[0] : columns[-1] + 1])
                assert np.array_equal(glyph, printed(character))
            count += 1
    assert count > 30


@lru_cache
def stamps():
    """Darkness in [0, 1] of every digit of the data set as large as scenes have them."""
    images = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    return np.stack(
        [
            np.asarray(Image.fromarray(i).resize((24, 24), Image.Resampling.BILINEAR)) / 255
            for i in images
        ]
    )


def test_digits_are_real_ones_of_the_label_that_the_annotation_has(drawn):
    labels = load_digits().target
    count = 0
    for picture, frames in drawn["text_extraction"]:
        for instance in (instance for instance in picture.instances if instance.name == "digit"):
            x, y = instance.location.box[:2]
            crop = frames[0][y + 2 : y + 26, x + 2 : x + 26].max(axis=2).astype(float)
            paper = np.median(frames[0])
            darkness = np.clip((paper - crop) / (paper - 20), 0, 1)
            off = np.abs(stamps() - darkness).mean(axis=(1, 2))
            best = int(off.argmin())
            # Grain and clutter apart it is this very digit, and no reference of the reader.
            assert off[best] < 0.1 and best >= 900
            assert instance.text == str(labels[best])
            count += 1
    assert count > 15


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_is_a_function_of_its_generator(task):
    for first, second in zip(pictures_of(task)[:10], pictures_of(task)[:10], strict=True):
        assert first == second
        pairs = zip(first.draw(), second.draw(), strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_only_tracking_has_several_frames(drawn):
    for task, pairs in drawn.items():
        for picture, frames in pairs:
            assert picture.num_frames == len(frames)
            assert all(frame.shape == (SIDE, SIDE, 3) for frame in frames)
            assert (len(frames) > 1) == (task == "temporal_tracking")
    assert {len(frames) for _, frames in drawn["temporal_tracking"]} == {2, 3, 4}


def test_each_frame_shows_every_instance_where_its_path_says_and_noinstance_else(drawn):
    moved = 0
    for picture, frames in drawn["temporal_tracking"]:
        for number, frame in enumerate(frames):
            for instance in picture.instances:
                x, y = instance.path[number].point
                assert tuple(frame[y, x]) == PALETTE[instance.colour]
            for rgb in PALETTE.values():
                shown = int((frame == rgb).all(axis=2).sum())
                assert shown == int((frames[0] == rgb).all(axis=2).sum())
        movers = [
            instance for instance in picture.instances if instance.path[0] != instance.path[-1]
        ]
        assert dict(picture.origin)["moves"] == len(movers)
        moved += len(movers)
        # The paper is the same in all frames, where noinstance stands.
        locations = {location for instance in picture.instances for location in instance.path}
        for location in {location_of(cell) for cell in CELLS} - locations:
            x1, y1, x2, y2 = location.box
            assert all((f[y1:y2, x1:x2] == frames[0][y1:y2, x1:x2]).all() for f in frames)
    assert moved > PICTURES_PER_TASK / 2


def test_names_are_unique_but_where_objects_are_counted(drawn):
    for task, pairs in drawn.items():
        if task != "object_counting":
            assert all(picture.unique() == picture.objects() for picture, _ in pairs)
    assert any(picture.unique() != picture.objects() for picture, _ in drawn["object_counting"])


def test_clutter_and_occlusion_occur(drawn):
    strokes = {dict(p.origin)["strokes"] for pairs in drawn.values() for p, _ in pairs}
    assert {0} < strokes
    for task in ("attribute_recognition", "geometric_comparison", "relationship_detection"):
        assert any(picture.occlusions for picture, _ in drawn[task])


def test_a_scene_of_one_item():
    picture = to_picture(Scene((Item((1, 2), "red", "square", "medium"),), 4, 5))
    (instance,) = picture.instances
    location = Location("row 2 column 3", (56, 28, 84, 56), (70, 42))
    assert instance == Instance(
        "red square", "square", location, (62, 34, 79, 51), 17 * 17, (3, 2), "red", (1, 2)
    )
    assert picture.occlusions == () and len(picture.free) == 15
    assert picture.origin == (("strokes", 5), ("moves", 0))
