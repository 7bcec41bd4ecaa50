"""SLEAP: .slp files, by sleap-io. The centre of the first pixel is (0, 0), and a point that is not visible is occluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.files import atomic_path
from fewmark.core.geometry import Image
from fewmark.core.install import install_hint
from fewmark.core.text import count
from fewmark.data.formats.tools.named import NamedFace, by_image, from_samples, to_samples
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A labelled frame of a video.

    Attributes:
        video: The video's file; that of SLEAP itself where it holds the frame's image.
        index: Number of the frame, from 0.
        faces: Its faces; their image is the video.
        pixels: (H, W, 3) RGB where the file of SLEAP holds them, else None.
    """

    video: Path
    index: int
    faces: list[FaceSample]
    pixels: Image | None


def read_sleap(
    path: str | Path, *, n_landmarks: int | None = None, scheme: LandmarkScheme | None = None
) -> list[FaceSample]:
    """Read the labels of people; instances that SLEAP has predicted are left out.

    Args:
        path: The .slp file, whose videos are lists of images; see also `read_sleap_project`.
        n_landmarks: Required number of nodes, or None for any.
        scheme: Its names are expected, and decide the order.

    Raises:
        InputError: sleap-io is missing or cannot read the file, a video is no list of images, or see `to_samples`.
    """
    path = Path(path)
    labelled = _read(path)
    for frame in labelled:
        if not isinstance(frame.video.filename, list):
            raise InputError(
                f"{path}: expected labels of image files, given those of the video {Path(frame.video.filename).name}; add the file "
                "to a project by `fewmark add`, which reads the frames"
            )
    return to_samples(path, [face for frame in labelled for face in _faces(frame)], scheme, n_landmarks)


def read_sleap_project(path: str | Path, scheme: LandmarkScheme) -> tuple[list[FaceSample], list[VideoFrame]]:
    """Read the labels of people, in images and in frames of videos; see `read_sleap`."""
    path = Path(path)
    labelled = _read(path)
    faces = [_faces(frame) for frame in labelled]
    samples = iter(to_samples(path, [face for some in faces for face in some], scheme, None))
    images: list[FaceSample] = []
    frames: list[VideoFrame] = []
    for frame, some in zip(labelled, faces, strict=True):
        found = [next(samples) for _ in some]
        if isinstance(frame.video.filename, list):
            images += found
        else:
            frames.append(VideoFrame(found[0].image, int(frame.frame_idx), found, _embedded(path, frame)))
    return images, frames


def _read(path: Path) -> list[Any]:
    """Frames with labels of people, or without any."""
    sio = _sleap_io()
    try:
        labels = sio.load_slp(str(path), open_videos=False)
    except (OSError, KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: expected a file of SLEAP, which sleap-io could not read: {error}") from error
    frames = list(labels.labeled_frames)
    n_predicted = sum(len(f.predicted_instances) for f in frames)
    if n_predicted:
        warn_of_data(
            f"{path}: {count(n_predicted, 'instance')} that SLEAP has predicted are left out: no person has said so"
        )
    return frames


def _faces(frame: Any) -> list[NamedFace]:
    files = frame.video.filename
    file = str(files[int(frame.frame_idx)] if isinstance(files, list) else files)
    return [_face(file, instance) for instance in frame.user_instances] or [NamedFace(file, {})]


def _embedded(path: Path, frame: Any) -> Image | None:
    """The image of a frame that the file of SLEAP itself holds."""
    if Path(frame.video.filename).resolve() != path.resolve():
        return None
    frame.video.open()
    try:
        pixels = np.asarray(frame.image, np.uint8)
    finally:
        frame.video.close()
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _face(image: str, instance: Any) -> NamedFace:
    points, occluded = {}, set()
    for point in instance.points:
        name, (x, y) = str(point["name"]), point["xy"]
        if np.isfinite(x) and np.isfinite(y):
            points[name] = (float(x), float(y))
            if not point["visible"]:
                occluded.add(name)
    return NamedFace(image, points, frozenset(occluded))


def write_sleap(path: str | Path, samples: Sequence[FaceSample], scheme: LandmarkScheme | None) -> None:
    """Write a file of one list of images, its skeleton with the scheme's edges and mirror pairs. Boxes cannot be stored.

    Raises:
        InputError: sleap-io is missing, or see `from_samples`.
    """
    path, sio = Path(path), _sleap_io()
    images = by_image(from_samples(path, samples, scheme))
    assert scheme is not None  # `from_samples` has refused
    names = scheme.landmarks
    pairs = [] if scheme.mirror is None else [(names[a], names[b]) for a, b in enumerate(scheme.mirror) if a < b]
    nodes = {name: sio.Node(name) for name in names}
    skeleton = sio.Skeleton(
        list(nodes.values()),
        [sio.Edge(nodes[names[a]], nodes[names[b]]) for a, b in scheme.edges],
        [sio.Symmetry({nodes[a], nodes[b]}) for a, b in pairs],
        name=scheme.name,
    )
    video = sio.Video.from_filename(list(images))
    frames = []
    for index, faces in enumerate(images.values()):
        instances = []
        for face in (f for f in faces if f.points):
            missing = (np.nan, np.nan)
            instance = sio.Instance.from_numpy(
                np.array([face.points.get(n, missing) for n in names]), skeleton=skeleton
            )
            for k, name in enumerate(names):
                if name in face.occluded:
                    instance.points["visible"][k] = False
            instances.append(instance)
        frames.append(sio.LabeledFrame(video=video, frame_idx=index, instances=instances))
    labels = sio.Labels(frames, videos=[video], skeletons=[skeleton])
    with atomic_path(path) as temporary:
        sio.save_slp(labels, str(temporary), verbose=False)


def _sleap_io() -> Any:
    try:
        import sleap_io
    except ImportError:
        raise InputError(f"files of SLEAP need sleap-io: {install_hint('tools')}") from None
    return sleap_io
