"""300-W: 68 points; 3148 training faces, 554 common, 135 challenging. And Menpo, the same kind of tree."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, box_of_points
from fewmark.data.benchmarks.checks import check_count, check_subset, need_folder, read_matlab
from fewmark.data.formats.pts import find_image, read_points, read_pts
from fewmark.data.samples import FaceSample

_PARTS = {
    "train": {"afw": 337, "helen/trainset": 2000, "lfpw/trainset": 811},
    "common": {"helen/testset": 330, "lfpw/testset": 224},
    "challenging": {"ibug": 135},
}
_PARTS["full"] = _PARTS["common"] | _PARTS["challenging"]
_BOX_FIELDS = {"detector": "bb_detector", "ground-truth": "bb_ground_truth"}
_BOX_FOLDERS = ("Bounding Boxes", "Bounding_Boxes", "bounding_boxes", ".")

MENPO_COUNTS = {("semi-frontal", "train"): 5658, ("semi-frontal", "test"): 5335,
                ("profile", "train"): 1906, ("profile", "test"): 1946}  # fmt: skip
_MENPO_POINTS = {"semi-frontal": 68, "profile": 39}


def read_300w(
    root: str | Path,
    subset: str,
    *,
    box: str = "ground-truth",
    strict: bool = True,
) -> list[FaceSample]:
    """Read 300-W as iBUG distributes it.

    Args:
        root: holds afw, helen/trainset, helen/testset, lfpw/trainset, lfpw/testset and ibug (images with
            .pts), and the unzipped `Bounding Boxes` with bounding_boxes_afw.mat and so on.
        subset: train (3148), common (554), challenging (135), full (689).
        box: ground-truth or detector, the two in the .mat files (often GTB and DET), or landmarks: the tight
            box of the points (GTL), for which no .mat is needed.
        strict: refuse counts other than the published ones.

    Returns:
        landmarks and boxes 0-based; group: the photograph, where several faces are cut from one.

    Raises:
        InputError: a folder, image, point file or box is missing or wrong, or a count is.

    Source: Sagonas et al., ICCVW 2013. Differs: the boxes of the .mat files are Matlab's and moved by one
    pixel, as the
        points are; public code for the papers leaves both as they are.
    """
    root = need_folder(Path(root), "300-W")
    check_subset("300-W", subset, tuple(_PARTS))
    if box not in (*_BOX_FIELDS, "landmarks"):
        raise InputError(f"300-W: box {box!r}: expected ground-truth, detector or landmarks")
    samples: list[FaceSample] = []
    for part, expected in _PARTS[subset].items():
        folder = need_folder(root / part, f"300-W's {part}")
        boxes = {} if box == "landmarks" else _read_boxes(root, part, _BOX_FIELDS[box])
        pts = sorted(f for f in folder.iterdir() if f.suffix.lower() == ".pts" and not f.name.startswith("."))
        check_count(f"{folder}: faces", expected, len(pts), strict)
        for labels in pts:
            image = find_image(labels)
            if image is None:
                raise InputError(f"{labels}: no image of that name is beside it")
            landmarks = read_pts(labels, n_landmarks=68)
            key = _key(labels.stem)
            if box != "landmarks" and key not in boxes:
                raise InputError(f"{labels}: no {box} box for it in bounding_boxes_{part.replace('/', '_')}.mat")
            samples.append(
                FaceSample(
                    image,
                    box_of_points(landmarks) if box == "landmarks" else boxes[key],
                    landmarks,
                    group=f"{part.split('/')[0]}/{_photograph(part, labels.stem)}",
                    name=image.relative_to(root).as_posix(),
                )
            )
    return samples


def _key(stem: str) -> str:
    """`image_092 _01` has a space in some copies and none in others."""
    return stem.replace(" ", "")


def _photograph(part: str, stem: str) -> str:
    return stem if part.startswith("lfpw") else re.sub(r"\s*_\d+$", "", stem)


def _read_boxes(root: Path, part: str, field: str) -> dict[str, Box]:
    name = f"bounding_boxes_{part.replace('/', '_')}.mat"
    places = [root / folder / name for folder in _BOX_FOLDERS]
    path = next((p for p in places if p.is_file()), places[0])
    cells = read_matlab(path, "300-W's boxes (ibug's bounding_boxes.zip)").get("bounding_boxes")
    boxes: dict[str, Box] = {}
    for cell in [cells] if isinstance(cells, dict) else [] if cells is None else list(cells):
        try:
            corners = np.asarray(cell[field], np.float32).ravel()
            key = _key(Path(str(cell["imgName"])).stem)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: expected cells with imgName and {field}, given {str(cell)[:60]!r}") from error
        if corners.shape != (4,) or not np.isfinite(corners).all():
            raise InputError(f"{path}: {key}: {field}: expected x0 y0 x1 y1, given {corners.tolist()}")
        boxes[key] = corners - 1
    if not boxes:
        raise InputError(f"{path}: expected a cell array `bounding_boxes`, given none")
    return boxes


def read_menpo(
    root: str | Path,
    subset: str,
    *,
    split: str = "train",
    strict: bool = True,
) -> list[FaceSample]:
    """Read one folder tree of the Menpo 2D challenge: images with .pts, the pose told by the number of
    points.

    Args:
        root: the folder of the split; folders below it are read too.
        subset: semi-frontal (68 points) or profile (39).
        split: train or test; says only which count to expect (5658 and 1906, 5335 and 1946).
        strict: refuse counts other than the published ones.

    Raises:
        InputError: a folder or image is missing, a point file is wrong, or the count is.

    Source: Zafeiriou et al., CVPRW 2017.
    """
    root = need_folder(Path(root), "Menpo")
    check_subset("Menpo", subset, tuple(_MENPO_POINTS))
    check_subset("Menpo split", split, ("train", "test"))
    samples = []
    for labels in sorted(f for f in root.rglob("*.pts") if not f.name.startswith(".")):
        points = read_points(labels)
        if len(points) not in _MENPO_POINTS.values():
            raise InputError(f"{labels}: expected 68 or 39 points, given {len(points)}")
        if len(points) != _MENPO_POINTS[subset]:
            continue
        image = find_image(labels)
        if image is None:
            raise InputError(f"{labels}: no image of that name is beside it")
        landmarks = (points - 1).astype(np.float32)
        name = image.relative_to(root).as_posix()
        samples.append(FaceSample(image, box_of_points(landmarks), landmarks, name=name))
    check_count(f"{root}: {subset} faces", MENPO_COUNTS[subset, split], len(samples), strict)
    return samples
