"""What a text says: the only one, the one beside an object, or all of them in reading order."""

import random

from pixelis.data.scenes import CELLS, GRID, draw_items, random_text
from pixelis.data.tasks.attribute_recognition import RELATIONS
from pixelis.data.tasks.draft import Call, Draft, Results, fill_scene, located, read, segment, zoom

SINGLE = (
    "What does the text say?",
    "Read the text.",
    "Which text is in the image?",
    "What is written in the image?",
    "Tell me what the text says.",
)
BESIDE = (
    "What does the text {relation} the {anchor} say?",
    "Read the text {relation} the {anchor}.",
    "Which text is {relation} the {anchor}?",
    "What is written {relation} the {anchor}?",
    "Tell me what the text {relation} the {anchor} says.",
)
ALL = (
    "What do all the texts say?",
    "Read all the texts.",
    "Which texts are in the image?",
    "What are all the texts in the image?",
    "Tell me what all the texts say.",
)


def _read(results: Results) -> str:
    return " ".join(str(result["text"]) for result in results if "text" in result)


def _wrong(rng: random.Random, answer: str) -> tuple[str, ...]:
    other = random_text(rng, (0, 0)).text
    candidates = (answer[::-1], other, answer[:-1] + other[-1])
    return tuple(dict.fromkeys(text for text in candidates if text != answer))


def build(rng: random.Random) -> Draft:
    """Propose one example, in one of three forms of growing length."""
    form = rng.choice(("single", "beside", "all"))
    calls: list[Call] = []
    if form == "beside":
        relation, (down, right) = rng.choice(list(RELATIONS.items()))
        row, col = rng.choice(CELLS)
        if not (0 <= row - down < GRID and 0 <= col - right < GRID):
            return build(rng)
        texts = [random_text(rng, (row, col))]
        anchor = draw_items(rng, [(row - down, col - right)])[0]
        scene = fill_scene(
            rng, [*texts, anchor], num_distractors=rng.randint(0, 5), num_texts=rng.randint(0, 2)
        )
        question = rng.choice(BESIDE).format(relation=relation, anchor=anchor.name)
        calls.append(segment(anchor, located(anchor)))
        calls.append(zoom(texts[0], f"The text {relation} it is in {texts[0].place}."))
        calls.append(read(texts[0], "Now read it."))
    else:
        num_texts = 1 if form == "single" else rng.randint(2, 3)
        texts = [random_text(rng, cell) for cell in sorted(rng.sample(CELLS, num_texts))]
        scene = fill_scene(rng, texts, num_distractors=rng.randint(0, 6))
        question = rng.choice(SINGLE if form == "single" else ALL)
        calls.extend(read(text, f"A text is in {text.place}.") for text in texts)
    answer = " ".join(text.text for text in texts)
    return Draft(
        scene=scene,
        question=question,
        calls=tuple(calls),
        # Quoted, as the result has it.
        conclusion=f'It says "{answer}".',
        answer=answer,
        answer_from=_read,
        wrong_answers=_wrong(rng, answer),
    )
