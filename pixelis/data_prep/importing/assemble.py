"""Drafts -> examples: what every format shares once its own shape is read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pixelis.data.example import Example
from pixelis.data.images import image_digest
from pixelis.data_prep.importing.draft import Call, run_calls
from pixelis.data_prep.importing.record import Record, RejectedError

GENERATOR = "import"


@dataclass(frozen=True)
class Draft:
    """One question with its answer, as a record gives it."""

    question: str
    images: tuple[Image.Image, ...]
    calls: tuple[Call, ...]
    conclusion: str
    answer: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def assemble(
    draft: Draft,
    record: Record,
    *,
    record_id: str | None,
    record_format: str,
    kind: tuple[str, str],
) -> Example:
    """The example of a draft.

    Args:
        draft: what the record says.
        record: where it stands.
        record_id: the record's own id; None derives one from place and content.
        record_format: for the provenance.
        kind: task and sample type.

    Raises:
        RejectedError: when question, answer or images are missing, or a call cannot be run.
    """
    if not draft.question:
        raise RejectedError("missing_text", "the question is missing or empty")
    if not draft.images:
        raise RejectedError("no_image", f"the question has no image: {draft.question[:60]!r}")
    if not draft.answer:
        raise RejectedError("no_answer", f"the question has no answer: {draft.question[:60]!r}")
    steps = run_calls(draft.calls, draft.images)
    digest = image_digest(*draft.images)
    content = json.dumps([record.file, record.line, draft.question, draft.answer, digest])
    return Example(
        id=record_id or hashlib.sha256(content.encode()).hexdigest()[:16],
        task=kind[0],
        sample_type=kind[1],
        question=draft.question,
        images=draft.images,
        trajectory=steps,
        conclusion=draft.conclusion,
        answer=draft.answer,
        ground_truth=draft.answer,
        provenance={
            **draft.provenance,
            "source": "input",
            "format": record_format,
            "file": record.file,
            "line": record.line,
            "generator": GENERATOR,
            "image_digest": digest,
        },
    )
