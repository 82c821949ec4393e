"""Read a chat: `messages` or `conversations` in any dialect become one CoTA record per question.

`turns` reads every turn, with calls and results in our own tags; here the turns are divided into
rounds: a question, its calls and results, its answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.chat import CALL_CLOSE, CALL_OPEN, RESPONSE_CLOSE, RESPONSE_OPEN, system_prompt
from pixelis.data_prep.importing.grounding import fill_objects
from pixelis.data_prep.importing.images import as_references, load_images
from pixelis.data_prep.importing.question_answer import reply_turn
from pixelis.data_prep.importing.turns import Turn, join_lines, read_turn, split_tags
from pixelis.data_prep.importing.values import (
    RejectedError,
    get_field,
    parse_json,
    read_list,
    show,
)

MAX_TURNS = 512
MAX_ROUNDS = 64
MARK = "<image>"
# A system turn that describes tools is left out, since ours describes the operations.
TOOLS_OPEN = "<tools>"


def read_chat(data: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Read `messages`, `conversations` or a list `prompt`: a CoTA record per question.

    An answer that is marked as not trained is context of the later questions only. The system turn
    begins the first question; in a chat with calls ours takes its place.
    """
    turns = _read_turns(data, folder)
    rounds = list(_divide(turns))
    if len(rounds) > 1 and not rounds[-1].reply:
        rounds.pop()  # the last question has no answer
    if len(rounds) > MAX_ROUNDS:
        raise RejectedError(
            "too_large", f"a chat may have {MAX_ROUNDS} questions, got {len(rounds)}"
        )
    records: list[dict[str, Any]] = []
    images: list[Image.Image] = []
    has_calls = any(each.steps for each in rounds)
    systems = [] if has_calls else [turn.text for turn in turns if _is_system(turn)]
    earlier = "".join(f"{text}\n" for text in systems)
    for each in rounds:
        images = images + each.images
        question = join_lines(each.questions)
        conclusion, answer = split_answer(join_lines(turn.text for turn in each.reply))
        record = {
            # Text from before must not replace a question that a round lacks.
            "question": f"{earlier}{question}" if question else "",
            "images": images,
            "trajectory": each.steps,
            "conclusion": join_lines((*(turn.thought for turn in each.reply), conclusion)),
            "answer": answer,
        }
        if all(turn.is_trained for turn in each.reply):
            records.append(record)
        earlier += f"Earlier: {question}\nAnswer: {answer}\n"
    if not records:
        raise RejectedError("not_trained", "every answer is marked as not trained")
    return records


def _is_system(turn: Turn) -> bool:
    """Return whether a turn is the system's and more than a description of tools."""
    describes = TOOLS_OPEN in turn.text or turn.text == system_prompt()
    return turn.role == "system" and bool(turn.text) and not describes


def _read_turns(data: Mapping[str, Any], folder: Path) -> list[Turn]:
    """Read the turns of a record, each with its images loaded."""
    raw = data.get("conversations")
    raw = read_list(get_field(data, "messages") if raw is None else raw)
    halves = [read_list(data.get(key)) for key in ("prompt", "completion")]
    # TRL writes both halves, or the answer beside the first one.
    if raw is None and isinstance(halves[0], list):
        raw = halves[0] + (halves[1] if isinstance(halves[1], list) else [])
    if not isinstance(raw, list) or not raw:
        given = data.get("messages") if raw is None else raw
        raise RejectedError("wrong_type", f"a chat must be a list of turns, got {show(given)}")
    if len(raw) > MAX_TURNS:
        raise RejectedError("too_large", f"a chat may have {MAX_TURNS} turns, got {len(raw)}")
    if system := get_field(data, "system"):
        raw = [{"role": "system", "content": system}, *raw]
    turns = [_with_own_images(read_turn(turn, at), turn) for at, turn in enumerate(raw, 1)]
    if turns[-1].role == "user" and (reply := reply_turn(data)):
        turns.append(read_turn(reply, len(turns) + 1))
    turns = _place_images(turns, as_references(get_field(data, "images")))
    # All images in one call, because the limits are per record.
    images = load_images([image for turn in turns for image in turn.images], folder)
    sizes = [image.size for image in images]
    texts = [text for turn in turns for text in (turn.thought, turn.text)]
    loaded, filled = iter(images), iter(fill_objects(texts, data.get("objects"), sizes))
    return [
        replace(
            turn,
            images=tuple(next(loaded) for _ in turn.images),
            thought=next(filled),
            text=next(filled),
        )
        for turn in turns
    ]


def _with_own_images(turn: Turn, raw: Mapping[str, Any]) -> Turn:
    """Give a turn the images that are listed beside its text, as Ollama writes them."""
    listed = as_references(get_field(raw, "images"))
    return _place_images([turn], listed)[0] if listed else turn


def _place_images(turns: list[Turn], listed: list[Any]) -> list[Turn]:
    """Give every turn its images: its own, and the record's list at its parts or `<image>` marks.

    Without a place for them the listed images belong to the first question.
    """
    if not listed and all(image is None for turn in turns for image in turn.images):
        raise RejectedError("no_image", "the record names no image")
    if listed and not any(None in turn.images for turn in turns):
        turns = [_read_marks(turn) for turn in turns]
    for number, turn in enumerate(turns, 1):
        if turn.images and turn.role != "user":
            raise RejectedError(
                "wrong_turns", f"turn {number}: the {turn.role} may show no image or {MARK}"
            )
    places = sum(image is None for turn in turns for image in turn.images)
    if listed and not places:
        first = next((i for i, turn in enumerate(turns) if turn.role == "user"), 0)
        turns[first] = replace(turns[first], images=(*listed, *turns[first].images))
        return turns
    if places != len(listed):
        raise RejectedError(
            "image_count", f"the turns have {places} places for images, the record {len(listed)}"
        )
    left = iter(listed)
    return [
        replace(turn, images=tuple(next(left) if image is None else image for image in turn.images))
        for turn in turns
    ]


def _read_marks(turn: Turn) -> Turn:
    """Replace the `<image>` marks of a turn's text by places after its own images."""
    before, *others = turn.text.split(MARK)
    text = before.rstrip(" \t")
    for other in others:
        after = other.strip(" \t")
        if not text or text.endswith("\n"):
            after = after.removeprefix("\n")
        elif after and not after.startswith("\n"):
            after = " " + after
        text += after
    return replace(turn, text=text.strip(), images=turn.images + (None,) * len(others))


@dataclass
class _Round:
    """A question with its calls and reply, filled turn by turn."""

    questions: list[str] = field(default_factory=list)  # the user's texts
    images: list[Image.Image] = field(default_factory=list)  # the images of the question
    # The calls as CoTA steps, with the results that the record has.
    steps: list[dict[str, Any]] = field(default_factory=list)
    # Position in `steps` -> id of each call that has no result yet.
    waiting: dict[int, Any] = field(default_factory=dict)
    reply: list[Turn] = field(default_factory=list)  # the assistant's turns since the last call

    @property
    def is_called(self) -> bool:
        """Whether the assistant called last, and has no result yet."""
        return bool(self.waiting) and not self.reply

    def add_calls(self, turn: Turn, calls: list[Any]) -> None:
        """Add calls, of which the first gets all text since the last call as its thought."""
        turns = [*self.reply, turn]
        thought = join_lines(text for each in turns for text in (each.thought, each.text))
        is_trained = all(each.is_trained for each in turns)
        self.reply = []
        for raw in calls:
            call = raw
            if isinstance(raw, dict) and raw.get("function") is not None:  # OpenAI's form
                call = raw["function"]
            if not isinstance(call, dict):
                raise RejectedError("broken_call", f"a call must be an object, got {show(call)}")
            self.waiting[len(self.steps)] = raw.get("id")
            arguments = get_field(call, "arguments")
            step = {"thought": thought, "operation": call.get("name"), "arguments": arguments}
            self.steps.append(step | {"supervised": is_trained})
            thought = ""

    def add_result(self, text: str, images: tuple[Image.Image, ...], call_id: Any) -> None:
        """Add a result to the call of the id, or to the first one that waits for its result."""
        if not self.is_called:
            raise RejectedError("wrong_turns", f"a result without a call: {show(text)}")
        same = (at for at, known in self.waiting.items() if known == call_id)
        position = next(same, next(iter(self.waiting)))
        del self.waiting[position]
        self.steps[position] |= {"result": text, "image": [*images]}


def _divide(turns: list[Turn]) -> Iterator[_Round]:
    """Yield the rounds, without system turns."""
    current: _Round | None = None
    for turn in turns:
        # Pixel-Reasoner shows a result in a plain turn: an image right after the call.
        shows_result = current is not None and current.is_called and bool(turn.images)
        if turn.role == "user" and RESPONSE_OPEN not in turn.text and not shows_result:
            if current is None or current.reply or current.steps:
                if current is not None:
                    yield current
                current = _Round()
            current.questions.append(turn.text)
            current.images += turn.images
        elif turn.role != "system":
            if current is None:
                raise RejectedError("wrong_turns", f"the {turn.role} answers before any question")
            _continue_round(current, turn)
    if current is None:
        raise RejectedError("wrong_turns", "no turn is the user's")
    yield current


def _continue_round(current: _Round, turn: Turn) -> None:
    if turn.role == "user":
        outside, tagged = split_tags(turn.text, RESPONSE_OPEN, RESPONSE_CLOSE)
        if not tagged:
            outside, tagged = "", [outside]
        if outside:
            raise RejectedError("wrong_turns", f"text stands beside a result: {show(outside)}")
        shown = [turn.images] * len(tagged)
        if len(tagged) > 1 and len(turn.images) == len(tagged):
            shown = [(image,) for image in turn.images]
        elif len(tagged) > 1 and turn.images:
            raise RejectedError(
                "image_count", "a turn with several results may hold no image, or one for each"
            )
        for text, images in zip(tagged, shown, strict=True):
            current.add_result(text, images, turn.call_id)
        return
    outside, tagged = split_tags(turn.text, CALL_OPEN, CALL_CLOSE)
    calls = [*turn.calls]
    for text in tagged:
        try:
            call = parse_json(text)
        except ValueError as error:
            raise RejectedError("broken_call", f"a call is not JSON: {error}") from error
        calls += call if isinstance(call, list) else [call]
    said = replace(turn, text=outside)
    if calls:
        current.add_calls(said, calls)
    elif outside or turn.thought:
        current.reply.append(said)


def split_answer(text: str) -> tuple[str, str]:
    """Split a reply into conclusion and answer; without <answer> all text is the answer."""
    outside, answers = split_tags(text, "<answer>", "</answer>")
    if len(answers) > 1:
        raise RejectedError("markup", f"a reply may have one <answer>, got {len(answers)}")
    return (outside, answers[0]) if answers else ("", outside)
