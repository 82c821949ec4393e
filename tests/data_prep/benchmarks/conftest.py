"""Small files in the layouts of public benchmarks."""

import json

import pytest
from PIL import Image

VSTAR = [
    {
        "image": f"{category}/{number}.jpg",
        "text": "What is the colour of the glove?\n(A) red\n(B) blue\n(C) Blue-green\n(D) green\n"
        "Answer with the option's letter from the given choices directly.",
        "category": category,
        "label": label,
        "question_id": number,
    }
    for number, (category, label) in enumerate(
        [("direct_attributes", "B"), ("direct_attributes", "A"), ("relative_position", "C")]
    )
]
INFOGRAPHIC = {
    "dataset_name": "infographicVQA",
    "dataset_version": "VQA1.0",
    "dataset_split": "val",
    "data": [
        {
            "questionId": 98313 + number,
            "question": "Which social platform has heavy female audience?",
            "image_local_name": f"{number}.jpeg",
            "image_url": "https://example.org/1.jpg",
            "ocr_output_file": f"{number}.json",
            "answers": ["pinterest", "Pinterest Inc"],
            "data_split": "val",
            "answer_type": [kind],
            "evidence": ["text"],
            "operation/reasoning": [],
        }
        for number, kind in enumerate(["single span", "multi span"])
    ],
}
TALLY = [
    {
        "image": f"VG_100K_2/{number}.jpg",
        "answer": answer,
        "data_source": "imported_genome",
        "question": "How many people are sitting?",
        "image_id": number,
        "question_id": 30000 + number,
        "issimple": simple,
    }
    for number, (answer, simple) in enumerate([(4, True), (0, False), (17, False)])
]


@pytest.fixture
def picture():
    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(
            "RGB", (40, 30), (40 * int(path.stem) if path.stem.isdecimal() else 9, 9, 9)
        ).save(path, "JPEG")

    return write


@pytest.fixture
def vstar(tmp_path, picture):
    folder = tmp_path / "vstar_bench"
    for record in VSTAR:
        picture(folder / record["image"])
        # As it comes: a record of its own beside each image, which is not read.
        beside = (folder / record["image"]).with_suffix(".json")
        beside.write_text(json.dumps({"target_object": ["glove"], "bbox": [[1, 2, 3, 4]]}))
    lines = "".join(json.dumps(record) + "\n" for record in VSTAR)
    (folder / "test_questions.jsonl").write_text(lines)
    return folder


@pytest.fixture
def infographicvqa(tmp_path, picture):
    folder = tmp_path / "infographics"
    for record in INFOGRAPHIC["data"]:
        picture(folder / "infographicsVQA_images" / record["image_local_name"])
    (folder / "infographicsVQA_val_v1.0_withQT.json").write_text(json.dumps(INFOGRAPHIC))
    return folder


@pytest.fixture
def tallyqa(tmp_path, picture):
    folder = tmp_path / "tallyqa"
    for record in TALLY:
        picture(folder / record["image"])
    (folder / "train.json").write_text("[]")
    (folder / "test.json").write_text(json.dumps(TALLY))
    return folder
