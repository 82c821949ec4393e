from pixelis.figures.event_notes import event_note, values_note


def test_a_rollback_says_what_and_why(rollback):
    assert event_note(rollback).split("<br>") == [
        "<b>step 20: rollback</b> (drop)",
        "stage easy",
        "before 0.7000, after 0.4000, delta -0.3000",
        "simple 0.700 · hard 0.300",
        "rollbacks so far: 1",
        "no attempt before step 40",
    ]


def test_an_advance_names_both_stages(advance, start):
    assert "stage easy → full" in event_note(advance)
    assert event_note(start) == "<b>step 0: start</b><br>stage easy"


def test_names_cannot_bring_markup_in(event):
    assert "<i>" not in event_note(event(1, "start", None, "<i>a</i>", {}))
    assert values_note({"<i>": 1.0}) == "&lt;i&gt; 1.000"
