"""Which examples are looked at together: by difficulty, task, sample type and operation.

Groups are named `all`, by difficulty (`simple`), by task (`task/object_counting`), by both
(`simple/object_counting`: a cell), by sample type (`type/self_correction`) and by the operations
that the reference trajectory uses (`operation/ZOOM_IN`; an example is in as many as it uses).
"""

from collections.abc import Iterable, Mapping, Sequence

from pixelis.data.example import DIFFICULTIES, Example

ALL = "all"
TASK_PREFIX = "task/"
TYPE_PREFIX = "type/"
OPERATION_PREFIX = "operation/"


def group_indices(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Positions of the examples of every group: difficulties, all, tasks, types, operations, cells.

    Groups without examples are left out.
    """
    difficulties = strata([example.difficulty for example in examples])
    groups: dict[str, list[int]] = {name: [] for name in (*difficulties, ALL)}
    named = [_names(example) for example in examples]
    for names in sorted(set().union(*named), key=_order) if named else ():
        groups[names] = []
    for index, example in enumerate(examples):
        for name in (example.difficulty, ALL, *sorted(named[index])):
            groups.setdefault(name, []).append(index)
    for difficulty in difficulties:
        for index in groups[difficulty]:
            groups.setdefault(f"{difficulty}/{examples[index].task}", []).append(index)
    return {name: indices for name, indices in groups.items() if indices}


def strata(names: Iterable[str]) -> list[str]:
    """Of groups' names those of difficulties, or of the groups that a benchmark has in their place.

    From simple to hard, then as they come.
    """
    found = dict.fromkeys(name for name in names if name != ALL and "/" not in name)
    return [*(d for d in DIFFICULTIES if d in found), *(n for n in found if n not in DIFFICULTIES)]


def without_cells(groups: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The groups but those of a difficulty and a task together."""
    return {n: i for n, i in groups.items() if not is_cell(n)}


def is_cell(name: str) -> bool:
    """Whether a group is one of a difficulty and a task together."""
    return "/" in name and not name.startswith((TASK_PREFIX, TYPE_PREFIX, OPERATION_PREFIX))


def _names(example: Example) -> set[str]:
    operations = {OPERATION_PREFIX + step.operation for step in example.trajectory}
    return {TASK_PREFIX + example.task, TYPE_PREFIX + example.sample_type, *operations}


def _order(name: str) -> tuple[int, str]:
    prefixes = (TASK_PREFIX, TYPE_PREFIX, OPERATION_PREFIX)
    return next(i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), name
