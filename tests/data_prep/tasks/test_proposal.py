import dataclasses

from pixelis.data_prep.annotated_image import Instance, Location
from pixelis.data_prep.tasks.proposal import (
    box_centre,
    get_properties,
    list_names,
    list_values,
    location_thought,
    read_text,
    result_area,
    result_box,
    segment,
    track,
    zoom_in,
)

SPOT = Location("row 2 column 3", (56, 28, 84, 56), (70, 42))
THING = Instance("red circle", "circle", SPOT, (59, 31, 82, 54), 413, (3, 2), "red")
OTHERS = [dataclasses.replace(THING, name=name) for name in ("blue cross", "green square")]


def test_calls_look_at_the_thing_s_spot():
    calls = [
        segment(THING, "a"),
        get_properties(THING, "a"),
        zoom_in(THING.location, "a"),
        read_text(THING, "a"),
    ]
    calls.append(track(THING, "a", 3))
    assert [(call.operation, call.arguments) for call in calls] == [
        ("SEGMENT_OBJECT_AT", {"x": 70, "y": 42}),
        ("GET_PROPERTIES", {"bbox": [56, 28, 84, 56]}),
        ("ZOOM_IN", {"bbox": [56, 28, 84, 56], "factor": 2}),
        ("READ_TEXT", {"bbox": [56, 28, 84, 56]}),
        ("TRACK_OBJECT", {"frames": [1, 2, 3], "bbox": [56, 28, 84, 56]}),
    ]
    assert all(call.thought == "a" and call.location == SPOT for call in calls)


def test_what_has_no_clear_outline_is_zoomed_into_instead():
    call = segment(dataclasses.replace(THING, outlined=False), "a")
    assert (call.operation, call.arguments["bbox"]) == ("ZOOM_IN", [56, 28, 84, 56])


def test_what_is_large_already_is_not_enlarged():
    for side, factor in ((160, 2), (161, 1)):
        location = Location("here", (0, 0, side, 20), (80, 10))
        assert zoom_in(location, "a").arguments["factor"] == factor


def test_a_thought_places_a_thing():
    assert location_thought(THING) == "The red circle is in row 2 column 3."


def test_names_are_listed_as_in_a_question():
    assert list_names([THING, OTHERS[0]]) == "the red circle or the blue cross"
    assert list_names([THING, *OTHERS]) == "the red circle, the blue cross or the green square"


def test_what_is_compared_stands_side_by_side():
    said = list_values("Area", ["red circle", "blue cross"], [361, 208])
    assert said == "Area of red circle: 361, blue cross: 208."


def test_what_a_step_found_is_its_box_its_area_and_its_middle():
    segmented = {"x": 3, "y": 3, "bbox": [1, 2, 5, 9], "area": 20}
    looked_at = {"bbox": [1, 2, 5, 9]}
    nothing = {"error": "no object"}
    assert result_box(segmented) == result_box(looked_at) == (1, 2, 5, 9)
    assert result_box(nothing) is None
    assert [result_area(found) for found in (segmented, looked_at, nothing)] == [20, 28, 0]
    assert (box_centre(segmented, 0), box_centre(segmented, 1)) == (3.0, 5.5)
    assert box_centre(nothing, 0) is None
