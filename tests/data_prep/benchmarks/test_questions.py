"""Choosing and opening questions: what is left out is told, and nothing outside is touched."""

import json

import pytest

from pixelis.data_prep.benchmarks import describe_rejection, questions_digest, read_questions
from pixelis.errors import DataError
from tests.data_prep.benchmarks.conftest import TALLY


def read(path, name="tallyqa", **more):
    settings = {"images": None, "samples_per_group": 100, "max_rejected": 1.0, "seed": 0} | more
    return read_questions(path, record_format=name, **settings)


@pytest.fixture
def change(tallyqa):
    """Change the first record of the file."""

    def write(**changed):
        (tallyqa / "test.json").write_text(json.dumps([TALLY[0] | changed, *TALLY[1:]]))
        return tallyqa

    return write


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("VG_100K/no.jpg", "no_image: 'VG_100K/no.jpg' does not exist in the folder"),
        ("../secret.jpg", "outside_folder: '../secret.jpg' lies outside the folder of images"),
        ("/etc/hostname", "outside_folder: '/etc/hostname' lies outside the folder"),
        ("link.jpg", "outside_folder: 'link.jpg' lies outside the folder"),
        ("https://x.org/a.jpg", "remote_image: 'https://x.org/a.jpg' is an address; nothing is"),
        ("test.json", "unreadable_image: 'test.json': an image does not open"),
        ("VG_100K_2", "unreadable_image: 'VG_100K_2' is not a file"),
    ],
)
def test_an_image_that_cannot_be_had_is_told_with_its_place(change, tmp_path, picture, image, told):
    picture(tmp_path / "secret.jpg")
    folder = change(image=image)
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    found = read(folder)
    assert len(found.examples) == 2
    (rejection,) = found.rejections
    assert describe_rejection(rejection).startswith(f"test.json:1 {told}")


def test_too_many_of_them_are_an_error(change):
    folder = change(image="no.jpg")
    assert len(read(folder, max_rejected=0.34).examples) == 2
    with pytest.raises(
        DataError,
        match=r"1 of the 3 records looked at in .*tallyqa cannot be used, more than max_rejected "
        r"0.33: test.json:1 no_image: 'no.jpg' does not exist in the folder",
    ):
        read(folder, max_rejected=0.33)


def test_a_question_that_is_too_long_or_cannot_be_encoded_is_told(tallyqa):
    def count_tokens(example):
        if example.provenance["line"] == 2:
            raise DataError("the model's processor refuses an image of 900 x 4 pixels")
        return 2049 if example.provenance["line"] == 3 else 2048

    (tallyqa / "test.json").write_text(
        json.dumps([{k: v for k, v in each.items() if k != "question_id"} for each in TALLY])
    )
    found = read(tallyqa, count_tokens=count_tokens, max_positions=2048)
    assert [example.provenance["line"] for example in found.examples] == [1]
    assert sorted(map(describe_rejection, found.rejections)) == [
        "test.json:2 unreadable_image: the model's processor refuses an image of 900 x 4 pixels",
        "test.json:3 too_long: 2049 tokens, more than the model's max_position_embeddings 2048",
    ]
    found = read(tallyqa, count_tokens=count_tokens, max_positions=None)
    assert {example.provenance["line"] for example in found.examples} == {1, 3}


def test_another_takes_the_place_of_one_that_is_left_out(change):
    folder = change(image="no.jpg", issimple=False)
    for seed in range(5):
        assert len(read(folder, samples_per_group=2, seed=seed).examples) == 2


def test_the_choice_is_by_group_and_seed(tallyqa, picture):
    records = [
        TALLY[0] | {"question_id": number, "issimple": number % 3 == 0} for number in range(60)
    ]
    (tallyqa / "test.json").write_text(json.dumps(records))

    def chosen(seed):
        found = read(tallyqa, samples_per_group=5, seed=seed)
        assert [e.difficulty for e in found.examples] == ["complex"] * 5 + ["simple"] * 5
        return [example.id for example in found.examples]

    assert chosen(1) == chosen(1) != chosen(2)


def test_only_chosen_images_are_opened(tallyqa):
    chosen = read(tallyqa, samples_per_group=1).examples
    kept = {example.provenance["line"] - 1 for example in chosen}
    for number, record in enumerate(TALLY):
        if number not in kept:
            (tallyqa / record["image"]).write_bytes(b"broken")
    again = read(tallyqa, samples_per_group=1)
    assert [e.id for e in again.examples] == [e.id for e in chosen] and again.rejections == ()
    for record in TALLY:
        (tallyqa / record["image"]).write_bytes(b"broken")
    with pytest.raises(DataError, match="holds no question that can be used, of 3 records: "):
        read(tallyqa)


def test_the_same_question_again_counts_once(tallyqa):
    (tallyqa / "test.json").write_text(json.dumps([*TALLY, TALLY[0]]))
    found = read(tallyqa)
    assert len(found.examples) == 3
    assert [each.reason for each in found.rejections] == ["duplicate_id"]


def test_a_repeated_id_of_another_question_gets_a_number(change):
    own = TALLY[1]["question_id"]
    found = read(change(question_id=own, issimple=False))
    assert len(found.examples) == 3 and found.rejections == ()
    assert {f"{own}", f"{own}#2"} < {example.id for example in found.examples}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vstar", r"V\*Bench in .*tallyqa must have test_questions.jsonl, or name the file"),
        (
            "infographicvqa",
            "InfographicVQA in .* must have infographicsVQA_val_v1.0_withQT.json or",
        ),
    ],
)
def test_a_folder_of_another_benchmark(tallyqa, name, message):
    with pytest.raises(DataError, match=message):
        read(tallyqa, name)


def test_what_is_not_there(tallyqa, tmp_path):
    with pytest.raises(DataError, match="input .*nowhere does not exist; name a file or a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="image_folder .*test.json is not a folder"):
        read(tallyqa, images=tallyqa / "test.json")
    (tallyqa / "test.json").write_text("[]")
    with pytest.raises(DataError, match="holds no question that can be used, of 0 records$"):
        read(tallyqa)
    (tallyqa / "test.json").write_text("nonsense")
    with pytest.raises(DataError, match="holds no records"):
        read(tallyqa)


def test_a_link_out_of_the_folder_is_refused(tallyqa, tmp_path):
    (tallyqa / "test.json").rename(tmp_path / "elsewhere.json")
    (tallyqa / "test.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match="test.json is a link that leaves the folder"):
        read(tallyqa)


def test_broken_records_are_told_and_the_rest_is_used(vstar):
    lines = (vstar / "test_questions.jsonl").read_text().splitlines()
    (vstar / "test_questions.jsonl").write_text("\n".join([lines[0], "{broken", "[1]", lines[2]]))
    found = read(vstar, "vstar")
    assert {e.id for e in found.examples} == {"direct_attributes/0", "relative_position/2"}
    assert [(r.line, r.reason) for r in found.rejections] == [(2, "broken_json"), (3, "wrong_type")]


def test_records_as_data_prep_imports_them(tmp_path, picture):
    picture(tmp_path / "in/a.jpg")
    records = [
        {"id": "one", "question": "What is it?", "image": "a.jpg", "answer": "a glove"},
        {"id": "two", "question": "How many?", "image": "a.jpg", "answer": 3, "task": "counting"},
        {"id": "three", "question": "Where?", "image": "../b.jpg", "answer": "left"},
    ]
    path = tmp_path / "in/some.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = read(path, None)
    assert found.format == "cota" and found.title == "some.jsonl (cota)"
    assert sorted((e.id, e.difficulty, e.task, e.ground_truth) for e in found.examples) == [
        ("one", "questions", "imported", "a glove"),
        ("two", "questions", "counting", "3"),
    ]
    assert [describe_rejection(each)[:30] for each in found.rejections] == [
        "some.jsonl:3 outside_folder: '"
    ]


def test_the_digest_tells_what_is_asked(tallyqa, picture):
    digest = questions_digest(read(tallyqa).examples)
    assert questions_digest(read(tallyqa).examples) == digest
    (tallyqa / TALLY[0]["image"]).unlink()
    (tallyqa / TALLY[0]["image"]).write_bytes((tallyqa / TALLY[1]["image"]).read_bytes())
    changed = questions_digest(read(tallyqa).examples)
    assert changed != digest
    (tallyqa / "test.json").write_text(json.dumps([TALLY[0] | {"answer": 5}, *TALLY[1:]]))
    assert questions_digest(read(tallyqa).examples) not in (digest, changed)
