"""Pseudo labels: the students' predictions on unlabelled faces, with every measure that a selection may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.geometry import Similarity
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, cut, upright_crop
from fewmark.models.codec import HeatmapCodec, average_heatmaps
from fewmark.models.ensemble import Ensemble, to_tensor

VIEW_CHANGES = AugmentRule(scale=0.08, rotation=12.0)
"""Scale and rotation of the views after the first two."""


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Pseudo labels of U unlabelled faces, as they are when student `student` is to be updated.

    Attributes:
        landmarks: (U, K, 2) px of the upright crops, by all students (Eq. 5).
        scores: (U, K) peaks of the averaged maps.
        disagreement: (U, K) standard deviation over students and views, px of the crops.
        own_landmarks: (S, U, K, 2) landmarks by each student alone.
        own_losses: (S, U) each student's Eq. 2 with its own landmarks as the truth: SPL's measure.
        student: Index of the student; -1 where it does not matter.
        quality: (U,) quality by the teacher (Eq. 3), higher is better, or None.
        last_selected: (S, U) whether a face is in each student's last selection: SPaCo's memory.
        true_error: (U,) mean over landmarks, px of the crops, NaN where the truth is unknown; for the oracle and for reports.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    disagreement: NDArray[np.float32]
    own_landmarks: NDArray[np.float32]
    own_losses: NDArray[np.float32]
    student: int = -1
    quality: NDArray[np.float32] | None = None
    last_selected: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    true_error: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.landmarks)


@torch.inference_mode()
def write_pseudo_labels(
    students: Sequence[nn.Module],
    codecs: Sequence[HeatmapCodec],
    faces: Sequence[CachedFace],
    *,
    size: int,
    mirror: Sequence[int] | None,
    n_views: int = 1,
    seed: int = 0,
    teacher: nn.Module | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> PseudoLabels:
    """Predict the landmarks of faces by all students, averaged over views, and estimate their quality.

    Args:
        students: S networks.
        codecs: One per student.
        faces: U cached faces.
        size: Side of the crops, px.
        mirror: (K,) permutation of the scheme, or None: no flipped views.
        n_views: 1 is the paper's; 2 adds the flipped image; more add rotated and scaled ones.
        seed: Seed of the views.
        teacher: Estimates the quality of the averaged maps of the upright crop, or None.
        device: Device of the networks.
        batch_size: Faces per forward pass.

    Source: TS3, Eq. 3 and 5.
    Differs: landmarks are averaged over views, after Radosavovic et al., Data distillation, CVPR 2018, which the paper names as
        complementary (section 2.2).
    """
    views = make_views(n_views, size, seed, flips=mirror is not None)
    n, n_students = len(faces), len(students)
    ensemble = Ensemble(students, codecs, mirror).to(device).eval()
    parts: dict[str, list[NDArray[np.float32]]] = {
        k: [] for k in ("mean", "scores", "disagreement", "own", "loss", "quality")
    }
    for start in range(0, n, batch_size):
        chunk = faces[start : start + batch_size]
        by_view = []
        for index, view in enumerate(views):
            if index == 0:
                crops = np.stack([upright_crop(f, size) for f in chunk])
            else:
                crops = np.stack([cut(f.window, view @ f.crop_from_window, size) for f in chunk])
            images = to_tensor(crops, device)
            outputs = [s(images) for s in students]
            maps = [c.normalise(o[-1].float()) for o, c in zip(outputs, codecs, strict=True)]
            points = torch.stack([c.decode(m)[0] for m, c in zip(maps, codecs, strict=True)])
            by_view.append(_back_from_view(points, view, mirror, device))
            if index == 0:
                plain = [m[:, :-1] if c.background else m for m, c in zip(maps, codecs, strict=True)]
                average = average_heatmaps(plain)
                _, scores = ensemble.codec.decode(average)
                losses = torch.stack([own_loss(o, c, (size, size)) for o, c in zip(outputs, codecs, strict=True)])
                parts["scores"].append(scores.cpu().numpy())
                parts["loss"].append(losses.cpu().numpy())
                if teacher is not None:
                    quality = teacher.label_quality(images, ensemble.codec.peak_normalised(average))  # type: ignore[operator]
                    parts["quality"].append(quality.float().cpu().numpy())
        stack = torch.stack(by_view)  # (views, S, b, K, 2)
        mean = stack.mean((0, 1))
        parts["mean"].append(mean.cpu().numpy())
        parts["disagreement"].append((stack - mean).norm(dim=-1).pow(2).mean((0, 1)).sqrt().cpu().numpy())
        parts["own"].append(stack.mean(0).cpu().numpy())
    return PseudoLabels(
        landmarks=np.concatenate(parts["mean"]),
        scores=np.concatenate(parts["scores"]),
        disagreement=np.concatenate(parts["disagreement"]),
        own_landmarks=np.concatenate(parts["own"], axis=1),
        own_losses=np.concatenate(parts["loss"], axis=1),
        quality=np.concatenate(parts["quality"]) if teacher is not None else None,
        last_selected=np.zeros((n_students, n), bool),
    )


def make_views(n_views: int, size: int, seed: int, *, flips: bool = True) -> list[Similarity]:
    """Maps from the upright crop to each view: the crop itself, then small rotations and scales, each with its flip if `flips`."""
    flip = Similarity.flip(size)
    rng = np.random.default_rng([seed, 77])
    middle = np.full(2, (size - 1) / 2)
    views = [Similarity.identity(), flip] if flips else [Similarity.identity()]
    while len(views) < n_views:
        rotated = Similarity.about(
            middle,
            middle,
            scale=float(rng.uniform(1 - VIEW_CHANGES.scale, 1 + VIEW_CHANGES.scale)),
            angle=float(rng.uniform(-VIEW_CHANGES.rotation, VIEW_CHANGES.rotation)),
        )
        views += [rotated, flip @ rotated] if flips else [rotated]
    return views[:n_views]


def own_loss(outputs: Sequence[Tensor], codec: HeatmapCodec, size: tuple[int, int]) -> Tensor:
    """(B,) squared error of all network stages against the maps of the student's own landmarks.

    Source: SPL as TS3, sections 1 and 4.4, describes it: the prediction is taken for the truth.
    """
    landmarks, _ = codec.decode(codec.normalise(outputs[-1].float()))
    ideal, _ = codec.encode(landmarks, size)
    return torch.stack([((codec.normalise(m.float()) - ideal) ** 2).sum((1, 2, 3)) for m in outputs]).sum(0)


def landmark_weights(disagreement: NDArray[np.float32], usual: float) -> NDArray[np.float32]:
    """Weight of a pseudo label in the loss: 1 where all views agree, a half at twice the usual disagreement.

    >>> [round(float(w), 2) for w in landmark_weights(np.array([0.0, 0.02, 0.06], np.float32), 0.01)]
    [1.0, 0.5, 0.1]
    """
    return np.asarray(1 / (1 + (disagreement / max(2 * usual, 1e-9)) ** 2), np.float32)


def mean_errors(found: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) mean distance over the landmarks whose truth is known, crop px; NaN where none is.

    Args:
        found: (N, K, 2) px of the upright crops.
        truth: The same, NaN where unknown.
    """
    errors = np.linalg.norm(found - truth, axis=2)
    known = np.isfinite(errors)
    total, n = np.where(known, errors, 0).sum(1), known.sum(1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32)


def _back_from_view(
    points: Tensor, view: Similarity, mirror: Sequence[int] | None, device: torch.device | str
) -> Tensor:
    """Landmarks (S, B, K, 2) of a view in px of the upright crop, in the scheme's order."""
    back = torch.from_numpy(view.inverse().matrix).float().to(device)
    landmarks = points.float() @ back[:, :2].T + back[:, 2]
    if np.linalg.det(view.matrix[:, :2]) < 0 and mirror is not None:
        landmarks = landmarks[:, :, list(mirror)]
    return landmarks
