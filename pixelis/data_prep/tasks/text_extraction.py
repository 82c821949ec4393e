"""What a text or a handwritten digit says: the only one, the one beside an object, or all."""

import random

from pixelis.data_prep.picture import Picture, Thing
from pixelis.data_prep.tasks.attribute_recognition import neighbours
from pixelis.data_prep.tasks.draft import Call, Draft, Findings, located, outline, read, zoom

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


def _read(findings: Findings) -> str:
    return " ".join(str(finding["text"]) for finding in findings if "text" in finding)


def _wrong(rng: random.Random, answer: str) -> tuple[str, ...]:
    """The answer with its characters turned round, changed, or one left out or added."""
    changed = list(answer)
    where = rng.randrange(len(changed))
    characters = "0123456789" if answer[where].isdigit() else "ACEHKLMNPRTUVXY"
    changed[where] = rng.choice([c for c in characters if c != answer[where]])
    candidates = (answer[::-1], "".join(changed), answer[:-1].rstrip(), answer + changed[where])
    return tuple(dict.fromkeys(text for text in candidates if text not in (answer, "")))


def _draft(
    rng: random.Random, picture: Picture, question: str, calls: list[Call], texts: list[Thing]
) -> Draft:
    answer = " ".join(text.text for text in texts)
    return Draft(
        picture=picture,
        question=question,
        calls=tuple(calls),
        # Quoted, as the result has it.
        conclusion=f'It says "{answer}".',
        answer=answer,
        answer_from=_read,
        wrong_answers=_wrong(rng, answer),
    )


def build(rng: random.Random, picture: Picture) -> Draft | None:
    """Ask in one of three forms of growing length."""
    written = [thing for thing in picture.things if thing.text]
    if not written:
        return None
    word = rng.choice(sorted({thing.name for thing in written}))
    texts = [thing for thing in written if thing.name == word]
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
            outline(anchor, located(anchor)),
            zoom(text.spot, f"The {word} {relation} it is in {text.spot.place}."),
            read(text, "Now read it."),
        ]
        return _draft(rng, picture, question, calls, [text])
    texts.sort(key=lambda thing: (thing.spot.box[1], thing.spot.box[0]))
    question = (SINGLE if form == "single" else ALL)[phrasing].format(word=word)
    calls = [read(text, f"A {word} is in {text.spot.place}.") for text in texts]
    return _draft(rng, picture, question, calls, texts)
