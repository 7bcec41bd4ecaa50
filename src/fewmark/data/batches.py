"""Batches of augmented crops as a function of (seed, epoch) alone, so that a run can be repeated, split over machines and resumed."""

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

N_THREADS = 1
"""Threads that make batches ahead of the training step: one keeps up with a GPU, more change nothing on few cores."""

Job = TypeVar("Job")
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Row:
    """One face of a batch: `Batch` without its first axis."""

    image: NDArray[np.uint8]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Input of one training step.

    Attributes:
        images: (B, ...) uint8, crops or patches.
        targets: (B, ...) float32, NaN where missing: landmarks (B, K, 2) crop px, or what a cascade stage predicts.
        weights: (B, K) weights of landmarks in the loss, or None for equal ones.
        indices: (B,) indices of the faces.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    indices: NDArray[np.int64]


MakeRow = Callable[[int, np.random.Generator], Row]
"""Face index, generator for its augmentation -> one row of a batch."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Epochs of batches over N faces.

    Attributes:
        n_faces: N.
        make_row: Makes one row; threads call it.
        batch_size: Rows of a batch over all processes.
        seed: Seed of shuffling and augmentation.
        shares: (N,) relative frequencies of the faces, or None: every face once an epoch.
        n_batches: Batches per epoch, or None: one pass over the faces, the last batch filled from the start.
        rank, world_size: This process takes its slice of every batch.
        n_threads: Threads that make batches ahead of the training step; 0 makes each on demand. Does not change the batches.

    Raises:
        InputError: There is no face, or the batch size is not a multiple of the number of processes.
    """

    n_faces: int
    make_row: MakeRow
    batch_size: int
    seed: int
    shares: NDArray[np.float64] | None = None
    n_batches: int | None = None
    rank: int = 0
    world_size: int = 1
    n_threads: int = N_THREADS

    def __post_init__(self) -> None:
        if self.n_faces < 1:
            raise InputError("training: expected at least one face, given none")
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise InputError(
                f"batch_size: expected a multiple of the {self.world_size} processes, given {self.batch_size}"
            )

    def __len__(self) -> int:
        return self.n_batches or -(-self.n_faces // self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Indices of an epoch's faces in order, (len(self) * batch_size,)."""
        n = len(self) * self.batch_size
        if self.shares is None and self.n_batches is None:
            permutation = np.random.default_rng([self.seed, epoch, 0]).permutation(self.n_faces)
            return np.resize(permutation, n).astype(np.int64)
        # each face gets the whole part of its expected count, the rest is drawn by systematic sampling: expected counts hold
        # on average, and those of all faces of one share together hold to within one in every epoch
        shares = np.ones(self.n_faces) if self.shares is None else self.shares
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
        """The batches of an epoch."""
        order = self.order(epoch).reshape(len(self), self.batch_size)
        part = self.batch_size // self.world_size
        first = self.rank * part
        jobs = [(order[b, first : first + part], b * self.batch_size + first) for b in range(len(order))]
        yield from _make_ahead(lambda job: self.make(job[0], epoch, job[1]), jobs, self.n_threads)

    def make(self, indices: NDArray[np.int64], epoch: int, position: int) -> Batch:
        """A batch from the faces' indices and the position of its first row in the epoch."""
        rngs = self.generators(epoch, position, len(indices))
        rows = [self.make_row(int(i), rng) for i, rng in zip(indices, rngs, strict=True)]
        weights = [r.weights for r in rows if r.weights is not None]
        return Batch(
            images=np.stack([r.image for r in rows]),
            targets=np.stack([r.targets for r in rows]),
            weights=np.stack(weights) if weights else None,
            indices=indices,
        )

    def generators(self, epoch: int, position: int, n: int) -> list[np.random.Generator]:
        """The generators of n rows of an epoch, from the position of the first."""
        return [np.random.default_rng([self.seed, epoch, 1, position + row]) for row in range(n)]


def face_rows(
    faces: Sequence[CachedFace],
    size: int,
    scheme: LandmarkScheme,
    augment: AugmentRule,
    *,
    landmarks: NDArray[np.float32] | None = None,
    weights: NDArray[np.float32] | None = None,
) -> MakeRow:
    """Rows of augmented crops (size, size, 3) with their landmarks (K, 2), crop px.

    Args:
        faces: N cached faces.
        size: Side of the crop, px.
        scheme: Gives the mirror for flips.
        augment: Ranges of the augmentation.
        landmarks: (N, K, 2) px of the upright crops in place of the faces' own (pseudo labels), or None.
        weights: (N, K) weights of the landmarks in the loss, or None.
    """
    mirror = None if scheme.mirror is None else list(scheme.mirror)

    def make_row(index: int, rng: np.random.Generator) -> Row:
        drawn = draw_augmentation(augment, rng, can_flip=mirror is not None)
        own = None if landmarks is None else landmarks[index]
        crop = apply_augmentation(faces[index], drawn, size, scheme, own)
        weight = None if weights is None else weights[index]
        if weight is not None and drawn.flip and mirror is not None:
            weight = weight[mirror]
        return Row(crop.image, crop.landmarks, weight)

    return make_row


def _make_ahead(make: Callable[[Job], Made], jobs: Sequence[Job], n_threads: int) -> Iterator[Made]:
    """The results of the jobs, in order, made ahead by threads."""
    if n_threads <= 0:
        for job in jobs:
            yield make(job)
        return
    pool = ThreadPoolExecutor(n_threads)
    ahead: deque[Future[Made]] = deque()
    try:
        for job in jobs:
            ahead.append(pool.submit(make, job))
            if len(ahead) > 2 * n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
