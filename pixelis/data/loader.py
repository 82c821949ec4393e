"""The data loader that follows the curriculum without delay.

Loaders read ahead, so a new mix would reach the model late. Here batches are planned only up to the
next step at which the mix may change, and the loader is rebuilt at that step. So the first step
after an event draws only from the new mix, with any number of workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pixelis.curriculum import CurriculumManager, MixtureSampler
from pixelis.data.dataset import CurriculumDataset, Key
from pixelis.errors import UserError

# The longest plan, in steps; limits its memory in runs without decisions.
MAX_SEGMENT_STEPS = 1000


@dataclass(frozen=True)
class _StepPlan:
    """The mix and the pool that one optimiser step draws from."""

    mix: Mapping[str, float]
    pool: Mapping[str, Sequence[int]] | None
    new_visit: bool


class _Batches(Dataset[Any]):
    """Collated micro-batches by their keys; a user's error is returned: a worker would wrap it."""

    def __init__(self, dataset: CurriculumDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, keys: Sequence[Key]) -> dict[str, torch.Tensor] | UserError:
        try:
            return self.dataset.collate([self.dataset[key] for key in keys])
        except UserError as error:
            return error


class CurriculumLoader:
    """An endless stream of micro-batches drawn by a MixtureSampler, segment by segment.

    Args:
        dataset: the dataset of the sampler's (difficulty, index) pairs.
        sampler: draws the pairs.
        manager: gives the mix and pool of each step; read only.
        batch_size: examples in a micro-batch of one process.
        accumulation_steps: micro-batches in an optimiser step.
        num_workers: loader processes; 0 loads in this process.
        rank: the rank of this process.
        world_size: number of processes that share each optimiser step's examples.
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
        """Start without a plan."""
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
        """Divide the same steps into micro-batches of another size, before the first step."""
        assert batch_size * accumulation_steps == self.batch_size * self.accumulation_steps
        self.batch_size, self.accumulation_steps = batch_size, accumulation_steps

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield micro-batches; a new segment is planned only when its first batch is needed."""
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
        """Yield the keys of this process's micro-batches.

        Each step's examples are sorted by length, for little padding. Over several steps they must
        not be: length grows with difficulty, and steps would become easy or hard ones.
        """
        per_step = self.examples_per_step
        for first in range(0, len(drawn), per_step):
            step = list(drawn[first : first + per_step])
            if per_step > self.batch_size:
                step.sort(key=self.dataset.length)
            starts = range(0, len(step), self.batch_size)
            batches = [step[start : start + self.batch_size] for start in starts]
            yield from batches[self.rank :: self.world_size]

    def _load(self, drawn: Sequence[Key]) -> Iterator[dict[str, torch.Tensor]]:
        loader: DataLoader[Any] = DataLoader(
            _Batches(self.dataset),
            batch_size=None,
            sampler=self._micro_batches(drawn),
            num_workers=self.num_workers,
            # A draw from torch's global generator would change every dropout after a resume.
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            self._served += 1
            yield batch

    def newest_step(self) -> list[list[str]]:
        """Return the example ids of the last complete step, one list per micro-batch here.

        Valid from the last micro-batch of a step to the first of the next.
        """
        first = (self._served // self.accumulation_steps - 1) * self.examples_per_step
        keys = self._micro_batches(self._drawn[first : first + self.examples_per_step])
        return [[self.dataset.example(key).id for key in micro_batch] for micro_batch in keys]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as if only the optimiser steps served so far had been drawn.

        Valid between optimiser steps; batches planned ahead and not served are not counted.
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
        """Continue with exactly the example that would have come next."""
        self.sampler.load_state_dict(state["sampler"])
        self._origin = self.sampler.state_dict()
        self._step, self._visit = state["step"], state["visit"]
        self._plan, self._served = [], 0
