"""Ask which object is the largest or the smallest; the measured areas decide."""

import random
from collections.abc import Sequence

from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.tasks.conclusions import conclude_extreme
from pixelis.data_prep.tasks.proposal import (
    Proposal,
    Results,
    list_names,
    others,
    result_area,
    segment,
)

PHRASINGS = (
    "Which is the {word}: {names}?",
    "Which one is the {word}: {names}?",
    "Find the {word} of these: {names}.",
    "Tell me the {word} object: {names}.",
    "What is the {word} one: {names}?",
)
WORDS = ("largest", "smallest")
# The least ratio of two areas at which one is called larger.
MIN_RATIO = 1.25


def extreme(areas: Sequence[int], names: Sequence[str], word: str) -> str:
    """Return the name of the largest or smallest area; empty if the next one is too close."""
    ordered = sorted(areas, reverse=word == "largest")
    ratio = max(ordered[0], ordered[1]) / max(1, min(ordered[0], ordered[1]))
    return names[areas.index(ordered[0])] if ratio >= MIN_RATIO else ""


def propose(rng: random.Random, picture: AnnotatedImage) -> Proposal | None:
    """Ask for the extreme of two to four objects."""
    word = rng.choice(WORDS)
    # Without an outline no area is measured.
    unique = [each for each in picture.unique() if each.outlined]
    num_named = rng.choice((2, 2, 3, 4))
    if len(unique) < num_named:
        return None
    named = rng.sample(unique, num_named)
    names = [instance.name for instance in named]
    answer = extreme([instance.area for instance in named], names, word)
    # A partly covered object is not smaller, so the uncovered areas must give the same answer.
    whole_areas = [round(each.area / (1 - each.occluded)) for each in named]
    if not answer or extreme(whole_areas, names, word) != answer:
        return None

    def areas_of(results: Results) -> list[int]:
        return [result_area(result) for result in results]

    def measured(results: Results) -> str:
        return extreme(areas_of(results), names, word)

    def conclude(results: Results) -> str:
        return conclude_extreme("area", names, areas_of(results), word, measured(results))

    return Proposal(
        picture=picture,
        question=rng.choice(PHRASINGS).format(word=word, names=list_names(named)),
        calls=tuple(segment(instance) for instance in named),
        conclusion=conclude,
        answer=answer,
        answer_from=measured,
        wrong_answers=others(names, answer),
    )
