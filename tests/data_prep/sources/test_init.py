import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from pixelis.data.chat import example_messages
from pixelis.data.example import SAMPLE_TYPES
from pixelis.data_prep.annotated_image import AnnotatedImage, Instance, Location
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.sources import SOURCES, open_source
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.data_prep.tasks import TASKS
from pixelis.errors import ConfigError, DataError
from pixelis.operations import execute

PAPER, RED, BLUE = (240, 240, 240), (215, 35, 40), (35, 70, 215)


class Shelf:
    """A third source: a red mug, a blue book and a lamp of no clear colour, side by side."""

    name = "shelf"
    tasks = (
        "attribute_recognition",
        "object_counting",
        "geometric_comparison",
        "spatial_reasoning",
        "relationship_detection",
    )

    def picture(self, rng, task):
        width = rng.randint(10, 20)
        boxes = {
            "mug": (4, 20, 4 + width, 40),
            "book": (40, 10, 65, 50),
            "lamp": (75, 20, 87, 46),
        }
        fills = {"mug": RED, "book": BLUE, "lamp": (90, 90, 20)}

        def draw():
            image = Image.new("RGB", (120, 60), PAPER)
            for kind, box in boxes.items():
                x1, y1, x2, y2 = box
                ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=fills[kind])
            return (image,)

        things = []
        for (kind, box), side in zip(boxes.items(), ("left", "middle", "right"), strict=True):
            x1, y1, x2, y2 = box
            middle = ((x1 + x2) // 2, (y1 + y2) // 2)
            things.append(
                Instance(
                    name=kind,
                    kind=kind,
                    location=Location(f"the {side}", box, middle),
                    extent=box,
                    area=(x2 - x1) * (y2 - y1),
                    position=middle,
                    colour={"mug": "red", "book": "blue"}.get(kind, ""),
                )
            )
        return AnnotatedImage(
            instances=tuple(things),
            draw=draw,
            free=(Location("the corner", (95, 10, 118, 50), (106, 30)),),
            axes=("X", "Y"),
            origin=(("shelf", 7),),
        )


ORDER = ("mug", "book", "lamp")  # from left to right


@pytest.mark.parametrize("sample_type", SAMPLE_TYPES)
@pytest.mark.parametrize("task", Shelf.tasks)
def test_a_third_source_is_one_class(task, sample_type):
    for index in range(6):
        example = generate_example(
            seed=1, index=index, task=task, sample_type=sample_type, source=Shelf()
        )
        assert example.provenance["source"] == "shelf"
        assert example.provenance["shelf"] == 7
        areas = {thing["name"]: thing["area"] for thing in example.provenance["objects"]}
        assert tuple(areas) == ORDER
        if task == "object_counting":
            assert example.answer == "1"
        elif task == "geometric_comparison":
            line = example.question.split("\n")[0]
            named = [kind for kind in ORDER if f"the {kind}" in line]
            best = max if "largest" in line else min
            assert example.answer == best(named, key=areas.get)
        for step in example.trajectory:
            assert execute(step.operation, step.arguments, example.images).result == step.result
        said = "".join(part for m in example_messages(example) if m.supervised for part in m.parts)
        assert said.count("<answer>") == 1
        assert said.endswith(f"<answer>{example.answer}</answer>")


@pytest.mark.parametrize("task", ["text_extraction", "temporal_tracking"])
def test_what_a_source_cannot_be_asked_says_so(task):
    message = (
        f"^the source 'shelf' gave no {task} example of type positive in 400 tries; "
        r"leave the task out \(tasks\) or add images$"
    )
    with pytest.raises(DataError, match=message):
        generate_example(seed=1, index=0, task=task, sample_type="positive", source=Shelf())


def test_sources_by_name():
    assert SOURCES == ("scenes", "coco")
    source = open_source("scenes")
    assert isinstance(source, DrawnScenes)
    assert source.name == "scenes"
    assert set(source.tasks) == set(TASKS)
    picture = source.picture(random.Random(0), "object_counting")
    assert picture.instances and len(picture.draw()) == picture.num_frames == 1


def test_coco_needs_a_folder():
    with pytest.raises(ConfigError, match="^source coco needs input: the folder of its images"):
        open_source("coco")
    with pytest.raises(DataError):
        open_source("coco", path=Path("no such folder"))
