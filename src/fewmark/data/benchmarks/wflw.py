"""Data sets with plain text labels and a folder of images: WFLW (98 points) and LaPa (106 points)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_of_points
from fewmark.data.benchmarks.checks import check_count, check_subset, need_folder
from fewmark.data.formats.csv import name_faces
from fewmark.data.formats.pts import find_image, read_points
from fewmark.data.image_names import resolve_images
from fewmark.data.samples import FaceSample

WFLW_ATTRIBUTES = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")
"""Attributes in the order of the six flags in a line."""

WFLW_COUNTS = {"train": 7500, "test": 2500, "pose": 326, "expression": 314, "illumination": 698,
               "make-up": 206, "occlusion": 736, "blur": 773}  # fmt: skip
LAPA_COUNTS = {"train": 18176, "val": 2000, "test": 2000}
_WFLW_LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"


def read_wflw(
    root: str | Path,
    subset: str,
    *,
    strict: bool = True,
) -> list[FaceSample]:
    """Read WFLW as it is distributed.

    Args:
        root: Folder with WFLW_images and WFLW_annotations/list_98pt_rect_attr_train_test.
        subset: "train" (7500 faces), "test" (2500), or the test faces with one attribute: "pose" (326), "expression"
            (314), "illumination" (698), "make-up" (206), "occlusion" (736) or "blur" (773).
        strict: Reject counts that differ from the published ones.

    Returns:
        Faces with 98 points and the box of the release. The group is the photograph.

    Raises:
        InputError: A file is missing, a line does not have 196 coordinates, 4 box values, 6 flags and a name, or the
            count is wrong.

    Source: Wu et al., CVPR 2018.
    """
    root = need_folder(Path(root), "WFLW")
    check_subset("WFLW", subset, tuple(WFLW_COUNTS))
    name = f"list_98pt_rect_attr_{'train' if subset == 'train' else 'test'}.txt"
    places = [root / _WFLW_LISTS / name, root / name]
    path = next((p for p in places if p.is_file()), places[0])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected WFLW's list") from error
    files: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 207:
            raise InputError(
                f"{path}: line {number}: expected 196 numbers, 4 of the box, 6 attributes and a name, "
                f"given {len(cells)} cells"
            )
        try:
            row = [float(c) for c in cells[:206]]
        except ValueError as error:
            raise InputError(f"{path}: line {number}: expected numbers before the name ({error})") from error
        if not np.isfinite(row).all():
            raise InputError(f"{path}: line {number}: expected finite numbers, given nan or inf")
        rows.append(row)
        files.append(cells[206])
    table = np.array(rows, np.float64).reshape(-1, 206)
    check_count(f"{path}: faces", WFLW_COUNTS["train" if subset == "train" else "test"], len(table), strict)
    keep = np.ones(len(table), np.bool_)
    if subset in WFLW_ATTRIBUTES:
        keep = np.asarray(table[:, 200 + WFLW_ATTRIBUTES.index(subset)] > 0.5)
        check_count(f"{path}: faces with {subset}", WFLW_COUNTS[subset], int(keep.sum()), strict)
    landmarks = table[:, :196].reshape(-1, 98, 2).astype(np.float32)
    boxes = table[:, 196:200].astype(np.float32)
    names, images = name_faces(files), resolve_images(files, root / "WFLW_images", path)
    return [
        FaceSample(images[files[i]], boxes[i], landmarks[i], group=files[i], name=names[i])
        for i in np.flatnonzero(keep).tolist()
    ]


def read_lapa(root: str | Path, subset: str, *, strict: bool = True) -> list[FaceSample]:
    """Read LaPa from `subset`/landmarks/NAME.txt (the number 106, then 106 points, 0-based) and `subset`/images/NAME.jpg.

    Raises:
        InputError: A folder, image or point file is missing or invalid, or the count (18176, 2000 or 2000) is wrong.

    Source: Liu et al., AAAI 2020.
    """
    root = need_folder(Path(root), "LaPa")
    check_subset("LaPa", subset, tuple(LAPA_COUNTS))
    folder = need_folder(root / subset / "landmarks", f"LaPa's {subset} landmarks")
    samples = []
    for labels in sorted(folder.glob("*.txt")):
        image = find_image(root / subset / "images" / labels.name)
        if image is None:
            raise InputError(f"{labels}: no image with the same name in {root / subset / 'images'}")
        landmarks = read_points(labels, n_landmarks=106).astype(np.float32)
        name = image.relative_to(root).as_posix()
        samples.append(FaceSample(image, box_of_points(landmarks), landmarks, name=name))
    check_count(f"{folder}: faces", LAPA_COUNTS[subset], len(samples), strict)
    return samples
