"""What people read of a question: where each step looked, its call, its result, the answer.

One `Act` is one step of an example or one turn of a model. Consoles print it as lines, and pages
show it on a card. Texts are cut off, and pages get images as `data:` URLs, so they load nothing.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from PIL import Image

from pixelis.data.chat import prose_of
from pixelis.data.example import Example
from pixelis.data_prep.regions import CALL_COLOUR, LabelledRegion, draw_regions, find_regions
from pixelis.evaluation.turns import CALL, Turn

MAX_VALUE = 60  # characters of a value in a sentence
MAX_TEXT = 400  # characters
MAX_QUESTION = 1200
MAX_FRAMES = 4
FRAME_SIDE = 210  # pixels
CROP_SIDE = 132
QUALITY = 82  # of WebP

# The label, arguments, result and colour of a call that is marked on the images.
MarkedCall = tuple[str, Any, Mapping[str, Any] | None, str]


@dataclass(frozen=True)
class Act:
    """One step or turn as short texts; `crop` is the image that its operation returned."""

    number: str
    thought: str
    call: str = ""
    result: str = ""
    failed: bool = False
    answer: str | None = None
    crop: Image.Image | None = None

    def as_text(self) -> str:
        """Return the lines for a console; the first one begins with the number."""
        texts = [self.thought, self.call]
        texts += [f"→ {self.result}"] if self.result else []
        texts += [f"answer: {self.answer}"] if self.answer is not None else []
        lines = "\n".join(filter(None, texts)).splitlines()
        heads = [f"{self.number:>3}", *[""] * len(lines)]
        return "\n".join(f"{head:3}  {line}" for head, line in zip(heads, lines, strict=False))


def build_act(
    number: str,
    thought: str,
    operation: str = "",
    arguments: Any = None,
    result: Mapping[str, Any] | None = None,
    *,
    answer: str | None = None,
    crop: Image.Image | None = None,
) -> Act:
    """Return the act of a turn or of a step with this number."""
    inner, result = _value(arguments), result or {}
    if isinstance(arguments, Mapping):
        inner = ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())
    return Act(
        number=number,
        thought=cut(thought) or "",
        call=cut(f"{operation}({inner})") or "" if operation else "",
        result=cut(", ".join(f"{name}: {_value(value)}" for name, value in result.items())) or "",
        failed="error" in result,
        answer=cut(answer),
        crop=crop,
    )


def turn_act(number: int, turn: Turn) -> Act:
    """Return the act of a model's turn."""
    return build_act(
        str(number),
        prose_of(turn.text),
        turn.operation,
        turn.arguments,
        turn.result,
        answer=turn.answer,
        crop=turn.image,
    )


def turn_acts(turns: Sequence[Turn]) -> list[Act]:
    """Return the acts of a model's turns, numbered from 1."""
    return [turn_act(number, turn) for number, turn in enumerate(turns, 1)]


def example_acts(example: Example) -> list[Act]:
    """Return the acts of an example's trajectory and, as the last one, its answer."""
    acts = [
        build_act(
            str(number),
            step.thought if step.supervised else f"{step.thought} [a planted error: no loss]",
            step.operation,
            step.arguments,
            step.result,
            crop=step.image,
        )
        for number, step in enumerate(example.trajectory, 1)
    ]
    return [*acts, build_act(str(len(acts) + 1), example.conclusion, answer=example.answer)]


def example_calls(example: Example) -> list[MarkedCall]:
    """Return the calls of an example's trajectory, labelled with the numbers of their steps."""
    return [
        (str(number), step.arguments, step.result, CALL_COLOUR)
        for number, step in enumerate(example.trajectory, 1)
    ]


def turn_calls(turns: Sequence[Turn]) -> list[MarkedCall]:
    """Return the calls among a model's turns, labelled with the numbers of the turns."""
    return [
        (str(number), turn.arguments, turn.result, CALL_COLOUR)
        for number, turn in enumerate(turns, 1)
        if turn.kind == CALL
    ]


def draw_frames(example: Example, calls: Sequence[MarkedCall]) -> list[tuple[str, Image.Image]]:
    """Return labelled images with marked calls, at most `MAX_FRAMES` of the frames."""
    count, last = min(MAX_FRAMES, len(example.images)), len(example.images) - 1
    frames = []
    for position in range(count):
        index = round(position * last / max(1, count - 1))
        marks = [
            LabelledRegion(region, label, colour)
            for label, arguments, result, colour in calls
            for region in find_regions(arguments, result, index + 1)
        ]
        side = {"side": FRAME_SIDE} if count > 1 else {}
        label = f"frame {index + 1} of {last + 1}" if count > 1 else ""
        frames.append((label, draw_regions(example.images[index], marks, **side)))
    return frames


def examples_page(examples: Sequence[Example], *, title: str, about: str) -> str:
    """Return the HTML of a page with one card per example."""
    cards = [
        {
            "facts": example_facts(example),
            "question": cut(example.question, MAX_QUESTION),
            "frames": draw_frames(example, example_calls(example)),
            "acts": example_acts(example),
        }
        for example in examples
    ]
    return render("examples.html.jinja", title=title, about=about, cards=cards)


def example_facts(example: Example) -> str:
    """Return difficulty, task, kind, score, split and id of an example on one line."""
    facts = (
        *(example.difficulty, example.task, example.sample_type),
        *(f"score {example.difficulty_score:.2f}", example.split, shorten(example.id, 40)),
    )
    return " · ".join(filter(None, facts))


def render(template: str, **values: Any) -> str:
    """Return the HTML of one of this folder's templates, with the style sheet of all pages."""
    style = resources.files("pixelis.evaluation").joinpath("page.css").read_text(encoding="utf-8")
    return _environment().get_template(template).render(style=style, **values)


def render_macro(name: str, *values: Any) -> str:
    """Return the HTML of a macro of acts.html.jinja: `acts` or `pictures`."""
    macros: Any = _environment().get_template("acts.html.jinja").module
    return str(getattr(macros, name)(*values))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pixelis.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"picture": _data_url, "crop": _crop_url}
    return environment


def shorten(value: Any, limit: int = MAX_VALUE) -> str:
    """Shorten a value to one line: a text unchanged, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def cut(text: str | None, limit: int = MAX_TEXT) -> str | None:
    """Return a text with a note where it is cut off."""
    if text is None or len(text.strip()) <= limit:
        return text and text.strip()
    return f"{text.strip()[:limit]} ... [{len(text)} characters]"


def _value(value: Any) -> str:
    return shorten(value, 80)


def _crop_url(image: Image.Image) -> str:
    return _data_url(draw_regions(image, (), side=CROP_SIDE))


def _data_url(image: Image.Image) -> str:
    """Return an image as a `data:` URL in WebP."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
