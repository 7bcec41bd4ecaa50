"""Write pseudo labels: what the students say of unlabelled faces, and all that a selection may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.geometry import Similarity
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, cut, upright_crop
from fewmark.models.codec import HeatmapCodec, average_heatmaps
from fewmark.models.ensemble import Ensemble, to_tensor

_VIEW_SCALES = AugmentRule(scale=0.08, rotation=12.0)


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """What is known of U unlabelled faces when student `student` is to be updated.

    Attributes:
        student: the index of that student; -1 where it does not matter.
        landmarks: (U, K, 2) px of the upright crops, by all students (Eq. 5).
        scores: (U, K) of the averaged maps.
        spread: (U, K) crop px: how far students and views lie from their mean.
        own_landmarks: (S, U, K, 2) of each student alone.
        own_losses: (S, U) each student's Eq. 2 with its own landmarks as the truth: SPL's measure.
        quality: (U,) the teacher's (Eq. 3), higher is better, or None.
        chosen: (S, U) bool, what was selected for each student last: SPaCo's memory.
        true_error: (U,) crop px, mean over landmarks; NaN where no truth is known. For the oracle and for
            reports, never else.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    spread: NDArray[np.float32]
    own_landmarks: NDArray[np.float32]
    own_losses: NDArray[np.float32]
    student: int = -1
    quality: NDArray[np.float32] | None = None
    chosen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    true_error: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.landmarks)

    def seen_by(self, student: int, **known: NDArray[np.generic] | None) -> PseudoLabels:
        """The same for another student, with what has become known."""
        return replace(self, student=student, **known)  # type: ignore[arg-type]


def views_of(n_views: int, size: int, seed: int, *, flips: bool = True) -> list[Similarity]:
    """Maps upright crop -> view: itself, then small turns and scales; each with its flip where `flips`."""
    flip = Similarity.flip(size)
    rng = np.random.default_rng([seed, 77])
    middle = np.full(2, (size - 1) / 2)
    found = [Similarity.identity(), flip] if flips else [Similarity.identity()]
    while len(found) < n_views:
        turn = Similarity.about(
            middle,
            middle,
            scale=float(rng.uniform(1 - _VIEW_SCALES.scale, 1 + _VIEW_SCALES.scale)),
            angle=float(rng.uniform(-_VIEW_SCALES.rotation, _VIEW_SCALES.rotation)),
        )
        found += [turn, flip @ turn] if flips else [turn]
    return found[:n_views]


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
    """Predict the landmarks of faces by all students, and judge them.

    Args:
        students: networks, with one codec each.
        faces: U cached faces.
        size: crop px.
        mirror: of the scheme; None = no flipped views.
        n_views: 1 = the paper's; 2 adds the flipped image; more add turned and scaled ones (landmarks are
            averaged).
        teacher: judges the averaged maps of the upright crop, or None.

    Source: TS3, Eq. 3 and 5. Differs: averaging over views, after Radosavovic et al., Data distillation,
    CVPR 2018, which the paper names as complementary (section 2.2).
    """
    views = views_of(n_views, size, seed, flips=mirror is not None)
    n, n_students = len(faces), len(students)
    ensemble = Ensemble(students, codecs, mirror).to(device).eval()
    parts: dict[str, list[NDArray[np.float32]]] = {
        k: [] for k in ("mean", "scores", "spread", "own", "loss", "quality")
    }
    for start in range(0, n, batch_size):
        chunk = faces[start : start + batch_size]
        seen = []
        for index, view in enumerate(views):
            if index == 0:
                crops = np.stack([upright_crop(f, size) for f in chunk])
            else:
                crops = np.stack([cut(f.window, view @ f.crop_from_window, size) for f in chunk])
            images = to_tensor(crops, device)
            outputs = [s(images) for s in students]
            maps = [_last_maps(o, c) for o, c in zip(outputs, codecs, strict=True)]
            points = torch.stack([c.decode(m)[0] for m, c in zip(maps, codecs, strict=True)])
            back = torch.from_numpy(view.inverse().matrix).float().to(device)
            landmarks = points.float() @ back[:, :2].T + back[:, 2]
            if np.linalg.det(view.matrix[:, :2]) < 0 and mirror is not None:
                landmarks = landmarks[:, :, list(mirror)]
            seen.append(landmarks)
            if index == 0:
                average = average_heatmaps([_plain(m, c) for m, c in zip(maps, codecs, strict=True)])
                _, scores = ensemble.codec.decode(average)
                losses = torch.stack([own_loss(o, c, (size, size)) for o, c in zip(outputs, codecs, strict=True)])
                parts["scores"].append(scores.cpu().numpy())
                parts["loss"].append(losses.cpu().numpy())
                if teacher is not None:
                    quality = teacher.label_quality(images, ensemble.codec.heights(average))  # type: ignore[operator]
                    parts["quality"].append(quality.float().cpu().numpy())
        stack = torch.stack(seen)  # (views, S, b, K, 2)
        mean = stack.mean((0, 1))
        parts["mean"].append(mean.cpu().numpy())
        parts["spread"].append((stack - mean).norm(dim=-1).pow(2).mean((0, 1)).sqrt().cpu().numpy())
        parts["own"].append(stack.mean(0).cpu().numpy())
    return PseudoLabels(
        landmarks=np.concatenate(parts["mean"]),
        scores=np.concatenate(parts["scores"]),
        spread=np.concatenate(parts["spread"]),
        own_landmarks=np.concatenate(parts["own"], axis=1),
        own_losses=np.concatenate(parts["loss"], axis=1),
        quality=np.concatenate(parts["quality"]) if teacher is not None else None,
        chosen=np.zeros((n_students, n), bool),
    )


def own_loss(outputs: Sequence[Tensor], codec: HeatmapCodec, size: tuple[int, int]) -> Tensor:
    """(B,) squared error of all network stages against the maps of the student's own landmarks.

    Source: SPL as TS3, section 1 and 4.4, describes it: the prediction is taken for the truth.
    """
    landmarks, _ = codec.decode(codec.normalise(outputs[-1].float()))
    ideal, _ = codec.encode(landmarks, size)
    return torch.stack([((codec.normalise(m.float()) - ideal) ** 2).sum((1, 2, 3)) for m in outputs]).sum(0)


def mean_errors(found: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) mean distance over the landmarks whose truth is known, crop px; NaN where none is.

    Args:
        found: (N, K, 2) px of the upright crops.
        truth: the same, NaN where unknown.
    """
    errors = np.linalg.norm(found - truth, axis=2)
    known = np.isfinite(errors)
    total, n = np.where(known, errors, 0).sum(1), known.sum(1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32)


def _plain(maps: Tensor, codec: HeatmapCodec) -> Tensor:
    return maps[:, :-1] if codec.background else maps


def _last_maps(outputs: Sequence[Tensor], codec: HeatmapCodec) -> Tensor:
    return codec.normalise(outputs[-1].float())
