"""A face and its landmarks, as a detector returns it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import user_path, write_text
from fewmark.core.geometry import Box, Image, box_of_points, fit_similarity, wrap_angle
from fewmark.core.install import install_hint
from fewmark.core.json import json_value
from fewmark.landmarks.names import find_landmarks
from fewmark.landmarks.scheme import LandmarkScheme

if TYPE_CHECKING:
    from fewmark.data.crops import FaceCrop
    from fewmark.data.images import ImageLike
    from fewmark.inference.head_pose import HeadPose


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """A face and its landmarks.

    `face["nose_tip"]` is a landmark, (2,) image px, and `face["left_eye"]` a component, (n, 2). Left and right are the image's, as in
    all packaged schemes: `left_eye` is the person's right eye, unless the image is mirrored. The person's own sides, as dlib, imutils and
    MediaPipe name them, are `face["subject_left_eye"]` and so on. No model tells which landmarks are hidden; low scores are a hint.

    Attributes:
        box: (4,) x0 y0 x1 y1 image px: the given box, or the face detector's, adapted to the model.
        landmarks: (K, 2) image px.
        scores: (K,) confidence of each landmark, for a cascade its coarse stage's; NaN where there is none.
        box_score: The face detector's score, 0 to 1; None for a given box.
        scheme: Annotation scheme of the landmarks.
        angle: In-plane rotation that the last pass undid, degrees counter-clockwise; 0 for a crop that was not rotated.
        expected_errors: (K,) image px: mean distance to the truth of landmarks with such scores on held-out faces; None from a model
            without calibration, and after a transfer to another scheme.
        quality: Quality of the landmarks as a whole, predicted by the model's teacher (TS3, Eq. 3); higher is better. It ranks faces
            of one model and is no probability: 0 is the mean of the teacher's training faces, 1 is one standard deviation of their
            log error better. None from a model without a teacher, and from a cascade.
    """

    box: Box
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    box_score: float | None
    scheme: LandmarkScheme
    angle: float = 0.0
    expected_errors: NDArray[np.float32] | None = None
    quality: float | None = None

    def __repr__(self) -> str:
        x0, y0, x1, y1 = (round(float(v)) for v in self.box)
        score = "box given" if self.box_score is None else f"score {self.box_score:.2f}"
        return f"{type(self).__name__}({self.scheme.name}, box {x0} {y0} {x1} {y1} px, {score})"

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """A landmark (2,) or a component (n, 2) by name, image px; see `find_landmarks`.

        Raises:
            InputError: The scheme has no such name; the message suggests the nearest.
        """
        if not isinstance(name, str):
            raise InputError(
                f"face[...]: expected a name, given {name!r}; landmarks by number are face.landmarks[{name!r}]"
            )
        found = find_landmarks(self.scheme, name)
        return self.landmarks[found if isinstance(found, int) else list(found)]

    __iter__ = None  # landmarks are in `landmarks`; names in `scheme`

    @cached_property
    def pose(self) -> HeadPose | None:
        """Rough (yaw, pitch, roll) of the head in degrees, from the landmarks alone: yaw > 0 turns the nose to the image's right, pitch > 0
        raises it, roll > 0 is counter-clockwise. None as in `head_pose`; how good it is, says `head_poses`."""
        from fewmark.inference.head_pose import head_pose

        return head_pose(self.landmarks, self.scheme)

    def aligned(self, image: ImageLike, size: int = 256, *, margin: float = 0.3, bgr: bool = False) -> FaceCrop:
        """Cut the face out upright: its landmarks lie as near to the scheme's mean face as rotation, scale and shift bring them.

        In a scheme without a mean face the tight box of the landmarks is cut out, rotated by `angle`.

        Args:
            image: The image of the face, as `Detector.detect` takes it.
            size: Side of the result, px.
            margin: Added on each side, as a fraction of the mean face's longer side.
            bgr: See `Detector.detect`; the result is RGB.

        Returns:
            `image` (size, size, 3) RGB, the `landmarks` in it, and `crop_from_image`, which maps image px to its px and has an inverse.

        Raises:
            InputError: The image cannot be read, size or margin are out of range, or fewer than two landmarks are present.
        """
        from fewmark.data.crops import CropRule, FaceCrop, cut_from_image
        from fewmark.data.images import to_rgb

        rule = CropRule(size, margin)
        seen = np.isfinite(self.landmarks).all(1)
        points = self.landmarks[seen].astype(np.float64)
        if len(points) < 2 or not np.ptp(points, axis=0).max() > 0:
            raise InputError(f"aligned: expected a face with two landmarks or more, given {len(points)} in one place")
        if self.scheme.mean_face is None:
            crop_from_image = rule.crop_from_image(box_of_points(points), angle=-self.angle)
        else:
            mean_from_image = fit_similarity(points, self.scheme.mean_face[seen].astype(np.float64))
            crop_from_image = rule.crop_from_image(np.array([0.0, 0.0, 1.0, 1.0])) @ mean_from_image
        landmarks = crop_from_image(self.landmarks).astype(np.float32)
        return FaceCrop(cut_from_image(to_rgb(image, bgr=bgr), crop_from_image, size), landmarks, crop_from_image)

    def draw(self, image: ImageLike, *, numbers: bool = False, names: bool = False, bgr: bool = False) -> Image:
        """Draw the landmarks on a copy of the image, as `draw_landmarks` does for several faces.

        Args:
            image: The image of the face, as `Detector.detect` takes it.
            numbers: Label each landmark with its index.
            names: Label each landmark with its name instead.
            bgr: See `Detector.detect`; the result is RGB.

        Returns:
            (H, W, 3) RGB.

        Raises:
            InputError: The image cannot be read.
        """
        from fewmark.data.images import to_rgb
        from fewmark.visualization.draw import draw_landmarks

        return draw_landmarks(to_rgb(image, bgr=bgr), [self], self.scheme, numbers=numbers, names=names)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the face: .json as `to_dict`, .pts its landmarks alone. An existing file is replaced.

        Raises:
            InputError: The name has another ending, or the file cannot be written.
        """
        file = user_path(path)
        if file.suffix.lower() == ".json":
            write_text(file, json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        elif file.suffix.lower() == ".pts":
            from fewmark.data.formats.pts import write_pts

            write_pts(file, self.landmarks)
        else:
            raise InputError(f"{path}: expected a file name ending in .json or .pts; write_faces writes other formats")

    @property
    def by_name(self) -> Mapping[str, NDArray[np.float32]]:
        """Landmark name -> (2,) image px."""
        return dict(zip(self.scheme.landmarks, self.landmarks, strict=True))

    def to_supervision(self) -> Any:
        """Convert this face to `supervision.KeyPoints`; see `to_supervision`."""
        return to_supervision([self])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; missing values are null."""
        pose = self.pose
        return {
            "scheme": self.scheme.name,
            "box_xyxy": [round(float(v), 2) for v in self.box],
            "angle": wrap_angle(round(self.angle, 2)),
            "pose": None if pose is None else {k: wrap_angle(round(v, 1)) for k, v in pose._asdict().items()},
            "box_score": None if self.box_score is None else round(self.box_score, 3),
            "landmarks": [[round(float(v), 3) for v in p] if np.isfinite(p).all() else None for p in self.landmarks],
            "scores": _numbers(self.scores, 4),
            "expected_errors": None if self.expected_errors is None else _numbers(self.expected_errors, 3),
            "quality": None if self.quality is None else round(self.quality, 3),
            "occluded": None,  # a field of the format that no model fills yet
        }


def _numbers(values: NDArray[np.float32], digits: int) -> list[float | None]:
    return [json_value(round(float(v), digits)) for v in values]


def to_supervision(faces: Sequence[Face]) -> Any:
    """Convert the faces of one image to `supervision.KeyPoints`, which supervision's annotators draw.

    Args:
        faces: Faces of one scheme; may be empty.

    Returns:
        `xy` (N, K, 2) image px, (0, 0) for a missing landmark, as is supervision's convention; the landmarks' confidence (N, K):
        the scores, 0 where missing; `class_id` (N,) zeros; `data["class_name"]` (N,) the scheme's name. If the installed version has
        `detection_confidence` (N,): the boxes' scores, provided every face has one.

    Raises:
        InputError: supervision is not installed, or the faces are of several schemes.
    """
    try:
        import supervision
    except ImportError as error:
        raise InputError(f"to_supervision needs supervision: {install_hint('supervision')}") from error
    if not faces:
        return supervision.KeyPoints.empty()
    names = sorted({f.scheme.name for f in faces})
    if len(names) > 1:
        raise InputError(f"to_supervision: expected faces of one scheme, given {', '.join(names)}")
    # supervision renamed its argument `confidence`
    fields = getattr(supervision.KeyPoints, "__dataclass_fields__", {})
    confidence = "keypoint_confidence" if "keypoint_confidence" in fields else "confidence"
    more: dict[str, Any] = {}
    box_scores = [f.box_score for f in faces if f.box_score is not None]
    if "detection_confidence" in fields and len(box_scores) == len(faces):
        more["detection_confidence"] = np.array(box_scores, np.float32)
    return supervision.KeyPoints(
        xy=np.nan_to_num(np.stack([f.landmarks for f in faces]).astype(np.float32), nan=0.0),
        class_id=np.zeros(len(faces), int),
        data={"class_name": np.array([names[0]] * len(faces))},
        **{confidence: np.nan_to_num(np.stack([f.scores for f in faces]).astype(np.float32), nan=0.0)},
        **more,
    )
