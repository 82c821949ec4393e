"""Two ways to count an image's pixels: as it is stored, and as the model sees it after resizing.

Qwen2.5-VL gives places as pixels of the image that its processor made (sides of whole multiples of
28, an area within bounds). Data on disk, operations and measures count stored pixels.

Rounding: an edge of a box lies between pixels and goes to the nearest edge, halves up; a point is a
pixel and goes to the pixel that its centre falls into; a side of a box that would be empty becomes
the pixel that its centre falls into, and an area is at least one. All in whole numbers, so that
every machine rounds alike. Where the image is enlarged, there and back gives the same stored
pixels; where it is reduced, the nearest ones.
"""

from dataclasses import dataclass

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Frame:
    """One image: (width, height) as stored, and as the model sees it."""

    stored: Size
    seen: Size

    @property
    def is_same(self) -> bool:
        """Whether the model sees the image as it is stored."""
        return self.stored == self.seen

    @property
    def back(self) -> "Frame":
        """From seen to stored pixels."""
        return Frame(self.seen, self.stored)

    def box(self, box: Box) -> Box:
        """A box in seen pixels."""
        (x1, x2), (y1, y2) = (self._span(axis, box[axis], box[axis + 2]) for axis in (0, 1))
        return x1, y1, x2, y2

    def point(self, x: int, y: int) -> tuple[int, int]:
        """A pixel among the seen ones."""
        return self.pixel(0, x), self.pixel(1, y)

    def pixel(self, axis: int, value: int) -> int:
        """A pixel's place along one axis (0 is x)."""
        return (2 * value + 1) * self.seen[axis] // (2 * self.stored[axis])

    def area(self, value: int) -> int:
        """A number of pixels."""
        seen, stored = self.seen[0] * self.seen[1], self.stored[0] * self.stored[1]
        return max(min(value, 1), (2 * value * seen + stored) // (2 * stored))

    def _span(self, axis: int, low: int, high: int) -> tuple[int, int]:
        first, last = self._edge(axis, low), self._edge(axis, high)
        if first < last or low >= high:
            return first, last
        centre = (low + high) * self.seen[axis] // (2 * self.stored[axis])
        return centre, centre + 1

    def _edge(self, axis: int, value: int) -> int:
        stored = self.stored[axis]
        return (2 * value * self.seen[axis] + stored) // (2 * stored)
