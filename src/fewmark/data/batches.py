"""Batches of augmented crops, a function of (seed, epoch) alone.

So a run can be repeated, split over machines and resumed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule, apply_augmentation, draw_augmentation
from fewmark.data.crops import CachedFace
from fewmark.landmarks.scheme import LandmarkScheme

Job = TypeVar("Job")
Cut = TypeVar("Cut")


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step sees.

    Attributes:
        images: (B, size, size, 3) uint8.
        landmarks: (B, K, 2) crop px, NaN where missing.
        weights: (B, K) of each landmark in the loss.
        indices: (B,) which faces these are.
    """

    images: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    weights: NDArray[np.float32]
    indices: NDArray[np.int64]


def cut_ahead(cut: Callable[[Job], Cut], jobs: Sequence[Job], n_threads: int) -> Iterator[Cut]:
    """The results of the jobs, in order, made ahead by threads; 0 threads: each when it is asked for."""
    if n_threads <= 0:
        for job in jobs:
            yield cut(job)
        return
    pool = ThreadPoolExecutor(n_threads)
    ahead: deque[Future[Cut]] = deque()
    try:
        for job in jobs:
            ahead.append(pool.submit(cut, job))
            if len(ahead) > 2 * n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, eq=False)
class FaceBatches:
    """Epochs of batches over cached faces.

    Attributes:
        faces: N cached faces.
        size: crop px.
        scheme: gives the mirror.
        augment: ranges of the augmentation.
        batch_size: of all processes together.
        seed: of shuffling and augmentation.
        landmarks: (N, K, 2) px of the upright crops in place of the faces' own (pseudo labels), or None.
        weights: (N, K) weights of the landmarks in the loss, or None for 1.
        shares: (N,) how often a face is drawn relative to the others, or None: every face once an epoch.
        n_batches: batches an epoch, or None: one pass over the faces, the rest of an incomplete batch filled
            from the start.
        rank, world_size: this process takes its slice of every batch.
        n_threads: that cut crops ahead of the training step.
    """

    faces: Sequence[CachedFace]
    size: int
    scheme: LandmarkScheme
    augment: AugmentRule
    batch_size: int
    seed: int
    landmarks: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    shares: NDArray[np.float64] | None = None
    n_batches: int | None = None
    rank: int = 0
    world_size: int = 1
    n_threads: int = 1

    def __post_init__(self) -> None:
        if not self.faces:
            raise InputError("FaceBatches: expected at least one face, given none")
        if self.batch_size % self.world_size:
            raise InputError(
                f"batch_size: expected a multiple of the {self.world_size} processes, given {self.batch_size}"
            )

    def __len__(self) -> int:
        return self.n_batches or -(-len(self.faces) // self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Which faces the epoch sees, in order: (len(self) * batch_size,)."""
        n = len(self) * self.batch_size
        if self.shares is None and self.n_batches is None:
            permutation = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self.faces))
            return np.resize(permutation, n).astype(np.int64)
        # the whole part of a face's due for certain, the rest by systematic sampling: each face gets its due
        # on average, and all faces of one share together get theirs to within a draw in every epoch
        shares = np.ones(len(self.faces)) if self.shares is None else self.shares
        rng = np.random.default_rng([self.seed, epoch, 0])
        expected = shares / shares.sum() * n
        counts = np.floor(expected).astype(np.int64)
        rest = n - int(counts.sum())
        if rest:
            line = np.lexsort((rng.random(len(shares)), shares))
            edges = np.cumsum((expected - counts)[line])
            drawn = np.searchsorted(edges * (rest / edges[-1]), np.arange(rest) + rng.random(), side="right")
            np.add.at(counts, line[np.minimum(drawn, len(counts) - 1)], 1)
        return rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, cut ahead by threads."""
        order = self.order(epoch).reshape(len(self), self.batch_size)
        part = self.batch_size // self.world_size
        mine = slice(self.rank * part, (self.rank + 1) * part)
        jobs = [(order[b, mine], b * self.batch_size + mine.start) for b in range(len(order))]
        yield from cut_ahead(lambda job: self._cut(job[0], epoch, job[1]), jobs, self.n_threads)

    def _cut(self, indices: NDArray[np.int64], epoch: int, place: int) -> Batch:
        k = self.scheme.n_landmarks
        images = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        landmarks = np.empty((len(indices), k, 2), np.float32)
        weights = np.ones((len(indices), k), np.float32)
        for row, i in enumerate(indices):
            rng = np.random.default_rng([self.seed, epoch, 1, place + row])
            drawn = draw_augmentation(self.augment, rng, can_flip=self.scheme.mirror is not None)
            own = None if self.landmarks is None else self.landmarks[i]
            crop = apply_augmentation(self.faces[i], drawn, self.size, self.scheme, own)
            images[row], landmarks[row] = crop.image, crop.landmarks
            if self.weights is not None:
                w = self.weights[i]
                weights[row] = w[list(self.scheme.mirror)] if drawn.flip and self.scheme.mirror is not None else w
        return Batch(images, landmarks, weights, indices)
