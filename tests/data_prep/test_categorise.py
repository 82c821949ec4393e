"""Cuts of a data set at percentiles of the rank."""

from hypothesis import given
from hypothesis import strategies as st

from pixelis.data_prep.grading import categorise


def test_categories_by_hand():
    scores = [0.9, 0.1, 0.5, 0.3, 0.7, 0.2]
    keys = [(score,) for score in scores]
    found = categorise(keys, ["a"] * 6, ["t"] * 6, (100 / 3, 200 / 3))
    assert found == ["hard", "simple", "medium", "medium", "hard", "simple"]


@given(st.permutations(range(20)))
def test_the_order_of_the_examples_does_not_matter(order):
    keys = [(index % 4, index) for index in range(20)]
    groups = [index % 3 for index in range(20)]
    plain = categorise(keys, groups, groups, (33, 66))
    mixed = [groups[i] for i in order]
    shuffled = categorise([keys[i] for i in order], mixed, mixed, (33, 66))
    assert shuffled == [plain[i] for i in order]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=80),
    st.floats(1, 60),
    st.floats(61, 99),
)
def test_shares_are_exact_in_every_group_and_in_what_it_is_part_of(places, low, high):
    # Scores tie on purpose; the index breaks ties, as the id does in data-prep.
    keys = [(index % 3, index) for index in range(len(places))]
    parents = [parent for parent, _ in places]
    found = categorise(keys, places, parents, (low, high))
    for groups in (places, parents):
        for group in set(groups):
            mine = [found[i] for i, other in enumerate(groups) if other == group]
            simple, hard = mine.count("simple"), mine.count("hard")
            slack = 1 if groups is places else 0.5
            assert abs(simple - len(mine) * low / 100) <= slack + 1e-9
            assert abs(len(mine) - hard - len(mine) * high / 100) <= slack + 1e-9
    for group in set(places):
        ranked = sorted((keys[i], found[i]) for i, other in enumerate(places) if other == group)
        names = [name for _, name in ranked]
        assert names == sorted(names, key=["simple", "medium", "hard"].index)


def test_in_a_group_of_one_the_two_cuts_do_not_cross():
    # The remainder of the lower cut would go to y (.38), that of the upper one to x (.83).
    places = [("b", "x"), ("b", "x"), ("b", "x"), ("b", "y")]
    found = categorise([(i,) for i in range(4)], places, list("bbbb"), (38.0, 61.0))
    assert found == ["simple", "hard", "hard", "simple"]
    assert categorise([], [], [], (33, 66)) == []
