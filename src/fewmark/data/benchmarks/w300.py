"""300-W (68 points; 3148 training, 554 common and 135 challenging faces), and Menpo, which has a similar layout."""

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
        root: Folder with afw, helen/trainset, helen/testset, lfpw/trainset, lfpw/testset and ibug (images with .pts
            files), and the unzipped `Bounding Boxes` with bounding_boxes_afw.mat and so on.
        subset: "train" (3148 faces), "common" (554), "challenging" (135) or "full" (689).
        box: "ground-truth" or "detector" from the .mat files (often called GTB and DET), or "landmarks" for the tight
            box of the points (GTL), which needs no .mat file.
        strict: Reject counts that differ from the published ones.

    Returns:
        Faces with 0-based landmarks and boxes. The group is the photograph, which may contain several faces.

    Raises:
        InputError: A folder, image, point file or box is missing or invalid, or a count is wrong.

    Source: Sagonas et al., ICCVW 2013. Differs: Matlab boxes are shifted by one pixel to be 0-based, like the points;
    public code for the papers leaves both unchanged.
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
                raise InputError(f"{labels}: no image with the same name in its folder")
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


def has_boxes(root: str | Path) -> bool:
    """Whether a folder of 300-W holds the published face boxes."""
    return any(any((Path(root) / folder).glob("bounding_boxes_*.mat")) for folder in _BOX_FOLDERS)


def _key(stem: str) -> str:
    """Remove spaces, since some copies have `image_092 _01` and others `image_092_01`."""
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
    """Read a split of the Menpo 2D challenge: images with .pts files, in which the number of points gives the pose.

    Args:
        root: Folder of the split, read with its subfolders.
        subset: "semi-frontal" (68 points) or "profile" (39 points).
        split: "train" or "test"; only determines the expected count (5658 and 1906, or 5335 and 1946).
        strict: Reject counts that differ from the published ones.

    Raises:
        InputError: A folder or image is missing, a point file is invalid, or the count is wrong.

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
            raise InputError(f"{labels}: no image with the same name in its folder")
        landmarks = (points - 1).astype(np.float32)
        name = image.relative_to(root).as_posix()
        samples.append(FaceSample(image, box_of_points(landmarks), landmarks, name=name))
    check_count(f"{root}: {subset} faces", MENPO_COUNTS[subset, split], len(samples), strict)
    return samples
