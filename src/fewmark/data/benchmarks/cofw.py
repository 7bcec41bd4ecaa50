"""COFW: 29 points with occlusion, 1345 training faces and 507 test faces; the .mat files contain the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.data.benchmarks.checks import check_count, check_subset, need_folder, need_library
from fewmark.data.samples import FaceSample

COFW_COUNTS = {"train": 1345, "test": 507}
_FILES = {"train": ("COFW_train_color.mat", "Tr"), "test": ("COFW_test_color.mat", "T")}


def read_cofw(
    root: str | Path,
    subset: str,
    *,
    images: str | Path | None = None,
    strict: bool = True,
) -> list[FaceSample]:
    """Read COFW (colour) and extract its images to files.

    Args:
        root: Folder with COFW_train_color.mat and COFW_test_color.mat (HDF5).
        subset: "train" (1345 faces: 845 of LFPW and 500 of COFW) or "test" (507 faces).
        images: Output folder of the images (train/000001.png, ...); None for cofw_images under root. Existing images
            are kept.
        strict: Reject counts that differ from the published ones.

    Returns:
        Faces with 29 points, 0-based, with `occluded` and the box of the release.

    Raises:
        InputError: The file is missing or invalid, h5py is not installed, images cannot be written, or a count is
            wrong.

    Source: Burgos-Artizzu et al., ICCV 2013. Differs: Matlab positions are shifted by one pixel to be 0-based.
    """
    root = need_folder(Path(root), "COFW")
    check_subset("COFW", subset, tuple(_FILES))
    file, letter = _FILES[subset]
    path = root / file
    h5py = need_library("h5py", "COFW")
    folder = (root / "cofw_images" if images is None else Path(images)) / subset
    try:
        with h5py.File(path, "r") as data:
            keys = (f"Is{letter}", f"phis{letter}", f"bboxes{letter}")
            if not all(key in data for key in keys):
                raise InputError(f"{path}: expected {', '.join(keys)}, given {', '.join(list(data)[:6])}")
            references = data[keys[0]][()].ravel()
            n = len(references)
            check_count(f"{path}: faces", COFW_COUNTS[subset], n, strict)
            phis = _rows(path, keys[1], data[keys[1]][()], n, 87)
            boxes = _rows(path, keys[2], data[keys[2]][()], n, 4)
            files = [folder / f"{i + 1:06d}.png" for i in range(n)]
            for i, image in enumerate(files):
                if not image.is_file():
                    _write_image(image, data[references[i]][()], f"{path}: {keys[0]}[{i}]")
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as HDF5 ({reason}); expected COFW's {file}") from error
    landmarks = np.stack([phis[:, :29], phis[:, 29:58]], axis=2).astype(np.float32) - 1
    x0y0 = boxes[:, :2] - 1
    corners = np.concatenate([x0y0, x0y0 + boxes[:, 2:]], axis=1).astype(np.float32)
    occluded = phis[:, 58:] > 0.5
    return [
        FaceSample(files[i], corners[i], landmarks[i], occluded[i], name=f"{subset}/{files[i].name}") for i in range(n)
    ]


def _rows(path: Path, key: str, array: Any, n: int, width: int) -> Any:
    """Return (n, width) numbers, undoing the transposition of Matlab arrays in HDF5."""
    table = np.asarray(array, np.float64)
    if table.shape == (width, n):
        table = table.T
    if table.shape != (n, width):
        raise InputError(f"{path}: {key}: expected {n} rows of {width} numbers, given an array of shape {table.shape}")
    return table


def _write_image(image: Path, array: Any, where: str) -> None:
    """Write an image that HDF5 stores transposed: (H, W) as (W, H) and (H, W, 3) as (3, W, H)."""
    pixels = np.asarray(array).T
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise InputError(f"{where}: expected a grey or RGB uint8 image, given {pixels.dtype} of shape {pixels.shape}")
    bgr = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    ok, data = cv2.imencode(".png", np.ascontiguousarray(bgr))
    if not ok:
        raise InputError(f"{where}: the image of shape {pixels.shape} cannot be written as PNG")
    with atomic_path(image) as temporary:
        temporary.write_bytes(data.tobytes())
