from dataclasses import replace

from pixelis.data_prep.importing import Ids, content_digest


def test_the_same_id_with_other_content_gets_a_number():
    ids = Ids()
    assert [ids.take("a", text) for text in "xyz"] == ["a", "a#2", "a#3"]
    assert [ids.take("a", text) for text in "xyz"] == [None, None, None]
    assert ids.take("b", "x") == "b"


def test_a_number_that_is_taken_is_not_given_again():
    ids = Ids()
    assert [ids.take(*each) for each in (("a#2", "x"), ("a", "y"), ("a", "z"))] == [
        *("a#2", "a", "a#3")
    ]
    assert ids.take("a#2", "w") == "a#2#2"


def test_what_is_asked_and_taught_is_the_content(one_of_each):
    for example in one_of_each:
        digest = content_digest(example)
        assert content_digest(replace(example, id="other", split="test", difficulty="")) == digest
        changed = {"question": "Else?", "answer": "else", "conclusion": "So it is not."}
        for name, value in changed.items():
            assert content_digest(replace(example, **{name: value})) != digest
        other = {**example.provenance, "image_digest": "0"}
        assert content_digest(replace(example, provenance=other)) != digest
