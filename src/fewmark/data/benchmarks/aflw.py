"""AFLW with 19 points: 20000 training faces and 4386 test faces, 1165 of them frontal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.data.benchmarks.checks import check_count, check_subset, need_folder, read_matlab
from fewmark.data.formats.csv import name_faces
from fewmark.data.image_names import resolve_images
from fewmark.data.samples import FaceSample

AFLW_COUNTS = {"train": 20000, "test": 4386, "frontal": 1165}
_IMAGES = ("images", "data/flickr", "flickr", "aflw/data/flickr", ".")


def read_aflw(
    root: str | Path,
    subset: str,
    *,
    images: str | Path | None = None,
    strict: bool = True,
) -> list[FaceSample]:
    """Read AFLW with the revised annotation used in the papers.

    Args:
        root: Folder with AFLWinfo_release.mat (nameList, bbox, data, mask_new, ra).
        subset: "train" (first 20000 of the permutation `ra`), "test" (the rest), or "frontal" (test faces with all 19
            points visible and inside the face box).
        images: Folder with 0/, 2/ and 3/; None for images, data/flickr or flickr under root.
        strict: Reject counts that differ from the published ones.

    Returns:
        Faces with 19 points, invisible ones missing (NaN), and the face box of the release; sqrt(area) of this box is
        the normaliser box-size. The group is the photograph.

    Raises:
        InputError: The file or folder is missing or invalid, or a count is wrong.

    Source: Zhu et al., CVPR 2016 (the annotation); TS3, section 4.1. Differs: visibility alone gives about 1314
    frontal faces; the 1165 of the tables also require every point inside the box.
    """
    root = need_folder(Path(root), "AFLW")
    check_subset("AFLW", subset, tuple(AFLW_COUNTS))
    path = root / "AFLWinfo_release.mat"
    mat = read_matlab(path, "AFLW's AFLWinfo_release.mat")
    missing = [k for k in ("nameList", "bbox", "data", "mask_new", "ra") if k not in mat]
    if missing:
        raise InputError(f"{path}: expected nameList, bbox, data, mask_new and ra, given no {missing[0]}")
    names = [str(name).strip() for name in np.atleast_1d(mat["nameList"])]
    n = len(names)
    check_count(f"{path}: faces", 24386, n, strict)
    data, mask, bbox = (np.asarray(mat[k], np.float64) for k in ("data", "mask_new", "bbox"))
    order = np.asarray(mat["ra"], np.int64).ravel() - 1
    for name, array, shape in (("data", data, (n, 38)), ("mask_new", mask, (n, 19)), ("bbox", bbox, (n, 4))):
        if array.shape != shape:
            raise InputError(f"{path}: {name}: expected an array of shape {shape}, given {array.shape}")
    if sorted(order.tolist()) != list(range(n)):
        raise InputError(
            f"{path}: ra: expected a permutation of 1 to {n}, given {order.size} numbers that are not a permutation"
        )
    landmarks = data.reshape(n, 2, 19).transpose(0, 2, 1)  # each row holds x of all points, then y of all points
    boxes = bbox[:, [0, 2, 1, 3]]  # each row holds left, right, top, bottom
    visible = mask > 0
    inside = (landmarks > boxes[:, None, :2]).all(axis=2) & (landmarks < boxes[:, None, 2:]).all(axis=2)
    n_train = 20000 if n > 20000 else n * 20000 // 24386
    chosen = order[:n_train] if subset == "train" else order[n_train:]
    if subset == "frontal":
        frontal = np.asarray((visible & inside).all(axis=1))
        chosen = chosen[frontal[chosen]]
    check_count(f"{path}: {subset} faces", AFLW_COUNTS[subset], len(chosen), strict)
    if images is not None:
        folder = need_folder(Path(images), "AFLW's images")
    else:
        folder = next((root / f for f in _IMAGES if (root / f / names[0]).parent.is_dir()), root / _IMAGES[0])
    points = np.where(visible[:, :, None], landmarks, np.nan).astype(np.float32)
    face_names, files = name_faces(names), resolve_images(names, folder, path)
    return [
        FaceSample(files[names[i]], boxes[i].astype(np.float32), points[i], group=names[i], name=face_names[i])
        for i in chosen.tolist()
    ]
