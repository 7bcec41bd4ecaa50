"""300-VW: videos with 68 points per frame, 50 for training and 64 for testing in three categories."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_of_points
from fewmark.data.benchmarks.checks import check_count, check_subset, need_folder
from fewmark.data.formats.pts import read_pts
from fewmark.data.samples import FaceSample

_NUMBERS = {
    "train": [
        1, 2, 3, 4, 7, 9, 10, 11, 13, 15, 16, 17, 18, 19, 20, 22, 25, 27, 28, 29, 31, 33, 34, 35, 37, 39,
        41, 43, 44, 46, 47, 48, 49, 53, 57, 59, 112, 113, 115, 119, 120, 123, 138, 143, 144, 160, 204, 205,
        223, 225,
    ],
    "test-a": [
        114, 124, 125, 126, 150, 158, 401, 402, 505, 506, 507, 508, 509, 510, 511, 514, 515, 518, 519, 520,
        521, 522, 524, 525, 537, 538, 540, 541, 546, 547, 548,
    ],
    "test-b": [
        203, 208, 211, 212, 213, 214, 218, 224, 403, 404, 405, 406, 407, 408, 409, 412, 550, 551, 553,
    ],
    "test-c": [
        410, 411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562,
    ],
}  # fmt: skip
VIDEOS_300VW = {subset: tuple(f"{n:03d}" for n in numbers) for subset, numbers in _NUMBERS.items()}
"""Videos of each subset. Category A is well lit, B has mild and C arbitrary conditions."""

INNER_49 = tuple(i for i in range(17, 68) if i not in (60, 64))
"""The 49 of the 68 points used to score 300-VW, without the contour and the inner mouth corners."""


def read_300vw(
    root: str | Path,
    subset: str,
    *,
    n_landmarks: int = 49,
    image_name: str = "{video}/imgs/{frame:06d}.png",
    every: int = 1,
    skip: Mapping[str, Collection[int]] | None = None,
    strict: bool = True,
) -> list[FaceSample]:
    """Read 300-VW after its frames have been extracted to images.

    Args:
        root: Folder with one subfolder per video, which contains annot/000001.pts and so on. Extract the images with
            ffmpeg -i vid.avi -start_number 1 imgs/%06d.png.
        subset: "train" (50 videos), "test-a" (31), "test-b" (19) or "test-c" (14).
        n_landmarks: 49, the scored points, or all 68.
        image_name: Pattern of image files under root, with video (text) and frame (number).
        every: Step between the annotated frames used: 1, 1 + every, ...
        skip: Video -> numbers of frames to leave out; some annotations of the release are known to be broken.
        strict: Reject a release without all videos of the subset; otherwise read the available ones.

    Returns:
        Faces with the tight box of the returned landmarks. The group is the video.

    Raises:
        InputError: A video, frame or point file is missing or invalid.

    Source: Shen et al., ICCVW 2015; TS3, section 4.1 for category C and the 49 points.
    """
    root = need_folder(Path(root), "300-VW")
    check_subset("300-VW", subset, tuple(VIDEOS_300VW))
    if n_landmarks not in (49, 68):
        raise InputError(f"300-VW: n_landmarks: expected 49 or 68, given {n_landmarks}")
    if every < 1:
        raise InputError(f"300-VW: every: expected 1 or more, given {every}")
    videos = [v for v in VIDEOS_300VW[subset] if (root / v / "annot").is_dir()]
    check_count(f"{root}: videos of {subset} with an annot folder", len(VIDEOS_300VW[subset]), len(videos), strict)
    samples = []
    for video in videos:
        left_out = (skip or {}).get(video, ())
        for labels in sorted((root / video / "annot").glob("*.pts"))[::every]:
            if not labels.stem.isdigit():
                raise InputError(f"{labels}: expected a frame's number as its name, such as 000001.pts")
            frame = int(labels.stem)
            if frame in left_out:
                continue
            name = _format_name(image_name, video, frame)
            if not (root / name).is_file():
                raise InputError(f"{root / name}: the frame of {labels.name} is missing; extract it or set image_name")
            landmarks = read_pts(labels, n_landmarks=68)
            if n_landmarks == 49:
                landmarks = np.ascontiguousarray(landmarks[list(INNER_49)])
            samples.append(FaceSample(root / name, box_of_points(landmarks), landmarks, group=video, name=name))
    if not samples:
        raise InputError(
            f"{root}: no frame of {subset} found; expected folders such as {VIDEOS_300VW[subset][0]}/annot"
        )
    return samples


def _format_name(image_name: str, video: str, frame: int) -> str:
    try:
        return image_name.format(video=video, frame=frame)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"300-VW: image_name {image_name!r}: expected a pattern with video and frame, such as "
            f"'{{video}}/imgs/{{frame:06d}}.png'"
        ) from error
