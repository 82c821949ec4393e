"""Ask for a text or a handwritten digit: the only one, the one next to an object, or all."""

import random

from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.tasks.attribute_recognition import neighbours
from pixelis.data_prep.tasks.proposal import Proposal, call_on_box, segment, zoom_in

SINGLE = (
    "What does the {word} say?",
    "Read the {word}.",
    "Which {word} is in the image?",
    "What is the {word} in the image?",
    "Tell me what the {word} says.",
)
BESIDE = (
    "What does the {word} {relation} the {anchor} say?",
    "Read the {word} {relation} the {anchor}.",
    "Which {word} is {relation} the {anchor}?",
    "What is the {word} {relation} the {anchor}?",
    "Tell me what the {word} {relation} the {anchor} says.",
)
ALL = (
    "What do all the {word}s say?",
    "Read all the {word}s.",
    "Which {word}s are in the image?",
    "What are all the {word}s in the image?",
    "Tell me what all the {word}s say.",
)


def _misreadings(rng: random.Random, answer: str) -> tuple[str, ...]:
    """Return the answer reversed, with one character changed, one missing, and one added."""
    changed = list(answer)
    index = rng.randrange(len(changed))
    characters = "0123456789" if answer[index].isdigit() else "ACEHKLMNPRTUVXY"
    changed[index] = rng.choice([c for c in characters if c != answer[index]])
    candidates = (answer[::-1], "".join(changed), answer[:-1].rstrip(), answer + changed[index])
    return tuple(dict.fromkeys(text for text in candidates if text not in (answer, "")))


def propose(rng: random.Random, picture: AnnotatedImage) -> Proposal | None:
    """Ask in one of three forms of growing length."""
    written = [instance for instance in picture.instances if instance.text]
    if not written:
        return None
    word = rng.choice(sorted({instance.name for instance in written}))
    texts = [instance for instance in written if instance.name == word]
    form = "all" if len(texts) > 1 else "single"
    if rng.random() < 0.4:
        form = "beside"
    phrasing = rng.randrange(5)
    if form == "beside":
        text = rng.choice(texts)
        beside = neighbours(picture, text)
        if not beside:
            return None
        relation, anchor = rng.choice(beside)
        question = BESIDE[phrasing].format(word=word, relation=relation, anchor=anchor.name)
        calls = [
            segment(anchor),
            zoom_in(
                text.location,
                f"The {word} {relation} {anchor.location.name} is in {text.location.name}.",
            ),
            call_on_box("READ_TEXT", text, "Now read it."),
        ]
        texts = [text]
    else:
        texts.sort(key=lambda each: (each.location.box[1], each.location.box[0]))
        question = (SINGLE if form == "single" else ALL)[phrasing].format(word=word)
        calls = [
            call_on_box("READ_TEXT", text, f"A {word} is in {text.location.name}.")
            for text in texts
        ]
    answer = " ".join(text.text for text in texts)
    return Proposal(
        picture=picture,
        question=question,
        calls=tuple(calls),
        conclusion=f'It says "{answer}".',  # quoted, as in the result
        answer=answer,
        answer_from=lambda results: " ".join(
            str(result["text"]) for result in results if "text" in result
        ),
        wrong_answers=_misreadings(rng, answer),
        num_options=10 if word == "digit" and len(texts) == 1 else 0,
    )
