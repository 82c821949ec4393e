"""Batches that never lag behind the curriculum.

Loaders read ahead; a mix that changes would reach the model late. Here a segment of batches is
planned only up to the next step at which the mix may change, and the loader is rebuilt there: the
first step after an event sees the new mix alone, with any number of workers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pixelis.curriculum import CurriculumManager, MixtureSampler
from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.errors import UserError

# A plan is cheap but not free; runs without decisions still get one of bounded length.
MAX_SEGMENT_STEPS = 1000


@dataclass(frozen=True)
class _StepPlan:
    """What one optimiser step draws from."""

    mix: Mapping[str, float]
    pool: Mapping[str, Sequence[int]] | None
    new_visit: bool


class _Batches(Dataset[Any]):
    """Micro-batches by their keys; a user's error is handed on, not dressed up by a worker."""

    def __init__(self, dataset: CurriculumDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, keys: Sequence[Key]) -> dict[str, torch.Tensor] | UserError:
        try:
            return self.dataset.collate([self.dataset[key] for key in keys])
        except UserError as error:
            return error


class _Lazily(Sampler[list[Key]]):
    """What a function yields, asked for when it is needed."""

    def __init__(self, make: Callable[[], Iterator[list[Key]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[list[Key]]:
        return self._make()


class CurriculumLoader:
    """An endless stream of micro-batches drawn by a MixtureSampler, segment by segment.

    Args:
        dataset: where the sampler's (difficulty, index) pairs are read.
        sampler: draws the pairs.
        manager: asked which mix and pool each step draws from; never changed.
        batch_size: examples in a micro-batch of one process.
        accumulation_steps: micro-batches in an optimiser step.
        num_workers: loader processes; 0 loads in the caller's.
        rank: of this process.
        world_size: processes that share each optimiser step's examples.
    """

    def __init__(
        self,
        dataset: CurriculumDataset,
        sampler: MixtureSampler,
        manager: CurriculumManager,
        *,
        batch_size: int,
        accumulation_steps: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Plan nothing yet."""
        self.dataset = dataset
        self.sampler = sampler
        self.manager = manager
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.num_workers = num_workers
        self.rank = rank
        self.world_size = world_size
        self.examples_per_step = batch_size * accumulation_steps * world_size
        self._step = 0
        self._visit = manager.visit
        self._origin = sampler.state_dict()
        self._plan: list[_StepPlan] = []
        self._served = 0
        self._drawn: Sequence[Key] = ()

    def split_steps(self, batch_size: int, accumulation_steps: int) -> None:
        """Cut the same optimiser steps into micro-batches of another size, before the first."""
        assert batch_size * accumulation_steps == self.batch_size * self.accumulation_steps
        self.batch_size, self.accumulation_steps = batch_size, accumulation_steps

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield micro-batches; a new plan is made only when its first batch is asked for."""
        while True:
            self._step += len(self._plan)
            self._plan, self._served = self._plan_segment(), 0
            self._origin = self.sampler.state_dict()
            self._drawn = self._draw(self.sampler, self._plan)
            yield from self._load(self._drawn)

    def _plan_segment(self) -> list[_StepPlan]:
        ahead = self.manager.steps_to_next_decision(self._step)
        length = MAX_SEGMENT_STEPS if ahead is None else min(ahead, MAX_SEGMENT_STEPS)
        entered, self._visit = self.manager.visit != self._visit, self.manager.visit
        return [
            _StepPlan(
                self.manager.mix_at(self._step + offset),
                self.manager.pool_at(self._step + offset),
                entered and offset == 1,
            )
            for offset in range(1, length + 1)
        ]

    def _draw(self, sampler: MixtureSampler, plan: Sequence[_StepPlan]) -> list[Key]:
        drawn: list[Key] = []
        for step in plan:
            sampler.set_mix(step.mix, new_visit=step.new_visit)
            sampler.set_pool(self._without_excluded(step.pool))
            drawn += sampler.draw(self.examples_per_step)
        return drawn

    def _without_excluded(
        self, pool: Mapping[str, Sequence[int]] | None
    ) -> Mapping[str, Sequence[int]] | None:
        """Return a pool without the examples that the dataset excludes."""
        excluded = self.dataset.excluded
        if not excluded:
            return pool
        names = {name for name, _ in excluded}
        wide = {name: range(self.dataset.sizes[name]) for name in names} | dict(pool or {})
        return {
            name: [index for index in indices if (name, index) not in excluded]
            for name, indices in wide.items()
        }

    def _micro_batches(self, drawn: Sequence[Key]) -> Iterator[list[Key]]:
        """This process's micro-batches; in each step like lengths together, for little padding.

        Only inside a step, whose examples are what the mix wants: over several steps, length goes
        with difficulty, and steps would become easy or hard ones.
        """
        per_step = self.examples_per_step
        for first in range(0, len(drawn), per_step):
            step = list(drawn[first : first + per_step])
            if per_step > self.batch_size:
                step.sort(key=self.dataset.length)
            batches = range(0, len(step), self.batch_size)
            found = [step[start : start + self.batch_size] for start in batches]
            yield from found[self.rank :: self.world_size]

    def _load(self, drawn: Sequence[Key]) -> Iterator[dict[str, torch.Tensor]]:
        loader: DataLoader[Any] = DataLoader(
            _Batches(self.dataset),
            batch_size=None,
            sampler=_Lazily(lambda: self._micro_batches(drawn)),
            num_workers=self.num_workers,
            # Its own: a draw from torch's would shift every dropout after a resume.
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            self._served += 1
            yield batch

    def newest_step(self) -> list[list[str]]:
        """The ids of the examples of the last whole step served, a list a micro-batch of this rank.

        Valid from the last micro-batch of a step to the first of the next.
        """
        first = (self._served // self.accumulation_steps - 1) * self.examples_per_step
        keys = self._micro_batches(self._drawn[first : first + self.examples_per_step])
        return [[self.dataset.example(key).id for key in micro_batch] for micro_batch in keys]

    def state_dict(self) -> dict[str, Any]:
        """The state as if only the optimiser steps served so far had been drawn.

        Valid between optimiser steps: what was planned ahead and not trained on is not counted.
        """
        steps, rest = divmod(self._served, self.accumulation_steps)
        assert rest == 0, f"{self._served} micro-batches are no whole number of steps"
        sampler = self.sampler.copy()
        sampler.load_state_dict(self._origin)
        self._draw(sampler, self._plan[:steps])
        return {
            "sampler": sampler.state_dict(),
            "step": self._step + steps,
            "visit": self._visit,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with exactly the example that would have come next."""
        self.sampler.load_state_dict(state["sampler"])
        self._origin = self.sampler.state_dict()
        self._step, self._visit = state["step"], state["visit"]
        self._plan, self._served = [], 0
