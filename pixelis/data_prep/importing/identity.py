"""Give every example an id of its own: in public data the id is often the image's."""

import hashlib
import json

from pixelis.data.example import Example


def content_digest(example: Example) -> str:
    """Compute the SHA-256 of what an imported example asks and teaches."""
    steps = [(step.thought, step.operation, step.arguments) for step in example.trajectory]
    parts = [example.question, steps, example.conclusion, example.answer]
    image = example.provenance["image_digest"]
    return hashlib.sha256(json.dumps([image, *parts], sort_keys=True).encode()).hexdigest()


class Ids:
    """The ids that are taken, and the contents that were seen under each."""

    def __init__(self) -> None:
        """Begin without any."""
        self._last: dict[str, int] = {}  # id -> the number that was given last for it
        self._seen: set[tuple[str, str]] = set()

    def take(self, own_id: str, content: str) -> str | None:
        """Return a free id: the example's own, or `id#2`; None for the same content again."""
        if (own_id, content) in self._seen:
            return None
        self._seen.add((own_id, content))
        name = own_id
        while name in self._last:
            self._last[own_id] += 1
            name = f"{own_id}#{self._last[own_id]}"
        self._last[name] = 1
        return name
