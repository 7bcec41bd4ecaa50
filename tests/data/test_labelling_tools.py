"""Files of labelling tools: what comes back after a round trip, what the tools themselves write, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark import DataWarning, FaceSample, LandmarkScheme, load_scheme, read_faces, write_faces
from fewmark.core.errors import InputError
from fewmark.data.images import write_image

PAIR = LandmarkScheme("pair", ("left_eye", "right_eye", "nose tip"))
TARGETS = {
    "labelme": "labels",
    "label-studio": "tasks.json",
    "cvat": "cvat.xml",
    "deeplabcut": "CollectedData_anna.csv",
    "sleap": "labels.slp",
}
NO_BOXES = ("deeplabcut", "sleap")


@pytest.fixture(autouse=True)
def _tools(request: pytest.FixtureRequest) -> None:
    """Tests of files that need a package skip where it is missing."""
    if "sleap" in request.node.name:
        pytest.importorskip("sleap_io", reason='needs sleap-io: pip install "fewmark[tools]"')
    if "h5" in request.node.name:
        pytest.importorskip("tables", reason='needs pandas and tables: pip install "fewmark[tools]"')


@pytest.fixture
def faces(tmp_path: Path) -> list[FaceSample]:
    """Two images, the first with two faces, the second with a missing and an occluded landmark."""
    for name in ("a.png", "wörk b.png"):
        write_image(tmp_path / name, np.full((60, 80, 3), 99, np.uint8))
    some = [
        FaceSample(tmp_path / "a.png", np.array([1, 2, 30, 40], np.float32), _points(0)),
        FaceSample(tmp_path / "a.png", np.array([31, 2, 60, 40], np.float32), _points(30)),
        FaceSample(tmp_path / "wörk b.png", None, _points(5), np.array([True, False, False])),
    ]
    assert some[2].landmarks is not None
    some[2].landmarks[1] = np.nan
    return some


def _points(shift: float) -> Any:
    return np.array([[10.25, 11], [20.5, 11.125], [15, 20.75]], np.float32) + np.array([shift, 0], np.float32)


@pytest.mark.parametrize("fmt", TARGETS)
def test_a_round_trip_loses_nothing_that_the_format_holds(fmt: str, faces: list[FaceSample], tmp_path: Path) -> None:
    target = tmp_path / TARGETS[fmt]
    write_faces(target, fmt, faces, PAIR)
    found = read_faces(target, fmt if fmt == "labelme" else None, scheme=PAIR)  # by its content, but for a folder
    assert [f.image.name for f in found] == ["a.png", "a.png", "wörk b.png"]
    for face, before in zip(found, faces, strict=True):
        assert face.image.resolve() == before.image.resolve()
        assert face.landmarks is not None
        assert before.landmarks is not None
        assert face.landmarks == pytest.approx(before.landmarks, abs=1e-3, nan_ok=True)
        if fmt not in NO_BOXES and before.box is not None:
            assert face.box == pytest.approx(before.box, abs=1e-3)
    if fmt != "deeplabcut":
        assert found[2].occluded is not None
        assert found[2].occluded.tolist() == [True, False, False]
    assert len(read_faces(target, fmt)) == 3  # without a scheme: in the file's order
    with pytest.raises(InputError, match="not of scheme ibug-68"):
        read_faces(target, fmt, scheme=load_scheme("ibug-68"))


@pytest.mark.parametrize(
    ("fmt", "words"),
    [
        ("deeplabcut", "occlusion and boxes"),
        ("sleap", "boxes"),
        ("dlib", "occlusion and parts of a px"),
        ("labelme", ""),
    ],
)
def test_what_a_format_cannot_hold_is_said(
    fmt: str, words: str, faces: list[FaceSample], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    write_faces(tmp_path / {"dlib": "out.xml"}.get(fmt, TARGETS.get(fmt, "")), fmt, faces, PAIR)
    told = [str(w.message) for w in recwarn if issubclass(w.category, DataWarning)]
    assert len(told) == bool(words)
    assert all(f"cannot hold {words}" in line for line in told)


@pytest.mark.parametrize("fmt", TARGETS)
def test_names_need_a_scheme(fmt: str, faces: list[FaceSample], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the scheme"):
        write_faces(tmp_path / TARGETS[fmt], fmt, faces)


def test_a_file_of_labelme(tmp_path: Path) -> None:
    """As LabelMe 5 writes it, one face without a group; (0.5, 0.5) is the centre of the first pixel."""
    write_image(tmp_path / "x.jpg", np.zeros((20, 20, 3), np.uint8))
    shapes = [
        {"label": "left_eye", "points": [[0.5, 0.5]], "group_id": None, "shape_type": "point", "flags": {}},
        {"label": "nose tip", "points": [[4.75, 10.5]], "group_id": None, "shape_type": "point", "flags": {}},
        {"label": "hair", "points": [[1, 1], [2, 2], [3, 1]], "group_id": None, "shape_type": "polygon", "flags": {}},
    ]
    data = {
        "version": "5.2.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": "x.jpg",
        "imageData": "aGk=",
        "imageHeight": 20,
        "imageWidth": 20,
    }
    (tmp_path / "x.json").write_text(json.dumps(data))
    (face,) = read_faces(tmp_path / "x.json", scheme=PAIR)
    assert face.landmarks is not None
    assert face.landmarks[[0, 2]].tolist() == [[0, 0], [4.25, 10]]
    assert np.isnan(face.landmarks[1]).all()
    assert face.image == tmp_path / "x.jpg"
    shapes.append(dict(shapes[0]))
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="'left_eye' stands twice"):
        read_faces(tmp_path / "x.json", scheme=PAIR)


def test_an_export_of_label_studio(tmp_path: Path) -> None:
    """As Label Studio exports it: an uploaded image, an older annotation and a cancelled one."""
    write_image(tmp_path / "face.jpg", np.zeros((100, 200, 3), np.uint8))

    def result(x: float, name: str) -> dict[str, Any]:
        value = {"x": x, "y": 50.0, "width": 0.3, "keypointlabels": [name]}
        return {
            "original_width": 200,
            "original_height": 100,
            "image_rotation": 0,
            "value": value,
            "id": name,
            "from_name": "kp-1",
            "to_name": "img-1",
            "type": "keypointlabels",
            "origin": "manual",
        }

    task = {
        "id": 7,
        "annotations": [
            {"id": 1, "was_cancelled": False, "result": [result(1.0, "left_eye")]},
            {"id": 2, "was_cancelled": False, "result": [result(25.25, "left_eye"), result(50.25, "right_eye")]},
            {"id": 3, "was_cancelled": True, "result": []},
        ],
        "file_upload": "1a2b3c4d-face.jpg",
        "data": {"img": "/data/upload/1/1a2b3c4d-face.jpg"},
    }
    (tmp_path / "export.json").write_text(json.dumps([task]))
    (face,) = read_faces(tmp_path / "export.json", scheme=PAIR)
    assert face.image == tmp_path / "face.jpg"
    assert face.landmarks is not None
    assert face.landmarks[:2].tolist() == [[50, 49.5], [100, 49.5]]


def test_an_export_of_cvat(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "annotations.xml").write_text(
        """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>1</id></task></meta>
<image id="0" name="a.jpg" width="20" height="20">
<skeleton label="face" source="manual" z_order="0">
<points label="left_eye" source="manual" outside="0" occluded="1" points="3.50,4.50"></points>
<points label="right_eye" source="manual" outside="1" occluded="0" points="0.00,0.00"></points>
<points label="nose tip" source="manual" outside="0" occluded="0" points="8.25,9.75"></points>
</skeleton>
<skeleton label="face" source="manual" z_order="0">
<points label="left_eye" source="manual" outside="0" occluded="0" points="13.50,4.50"></points>
</skeleton></image>
<image id="1" name="none.jpg" width="20" height="20"></image></annotations>"""
    )
    found = read_faces(tmp_path / "annotations.xml", scheme=PAIR)
    assert len(found) == 3
    assert found[0].landmarks is not None
    assert found[0].landmarks[[0, 2]].tolist() == [[3, 4], [7.75, 9.25]]
    assert np.isnan(found[0].landmarks[1]).all()
    assert found[0].occluded is not None
    assert found[0].occluded.tolist() == [True, False, False]
    assert found[2].landmarks is None


@pytest.mark.parametrize("several", [False, True])
def test_a_table_of_deeplabcut(several: bool, tmp_path: Path) -> None:
    """As DeepLabCut 2.2 and later write it, the image's path in three columns."""
    image = tmp_path / "labeled-data/clip/img001.png"
    write_image_at(image)
    head = [["scorer", "", "", *["anna"] * 4]]
    if several:
        head.append(["individuals", "", "", *["one"] * 4])
    head += [
        ["bodyparts", "", "", "left_eye", "left_eye", "nose tip", "nose tip"],
        ["coords", "", "", "x", "y", "x", "y"],
    ]
    path = tmp_path / "CollectedData_anna.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*head, ["labeled-data", "clip", "img001.png", "3.5", "4", "", ""]])
    (face,) = read_faces(path, scheme=PAIR)
    assert face.image == image
    assert face.landmarks is not None
    assert face.landmarks[0].tolist() == [3.5, 4]
    assert np.isnan(face.landmarks[1:]).all()


def test_a_table_of_deeplabcut_as_h5(faces: list[FaceSample], tmp_path: Path) -> None:
    """Both files of DeepLabCut say the same; the rows of the newer ones are named by three columns."""
    import pandas

    write_faces(tmp_path / "a.h5", None, faces, PAIR)
    write_faces(tmp_path / "a.csv", "deeplabcut", faces, PAIR)
    for face, other in zip(read_faces(tmp_path / "a.h5"), read_faces(tmp_path / "a.csv"), strict=True):
        assert face.landmarks == pytest.approx(other.landmarks, nan_ok=True)
    image = tmp_path / "labeled-data/clip/img001.png"
    write_image_at(image)
    columns = pandas.MultiIndex.from_product(
        [["anna"], ["left_eye"], ["x", "y"]], names=["scorer", "bodyparts", "coords"]
    )
    rows = pandas.MultiIndex.from_tuples([("labeled-data", "clip", "img001.png")])
    pandas.DataFrame([[3.5, 4.0]], rows, columns).to_hdf(tmp_path / "b.h5", key="df_with_missing", mode="w")
    (face,) = read_faces(tmp_path / "b.h5", scheme=PAIR)
    assert (face.image, face.landmarks is not None and face.landmarks[0].tolist()) == (image, [3.5, 4])
    (tmp_path / "c.h5").write_bytes(b"not a table")
    with pytest.raises(InputError, match=r"c\.h5: expected a table of DeepLabCut"):
        read_faces(tmp_path / "c.h5")


def test_a_file_of_sleap(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """As sleap-io writes it: a person's instance, one that SLEAP has predicted, and a video."""
    import sleap_io as sio

    write_image(tmp_path / "a.png", np.zeros((20, 20, 3), np.uint8))
    skeleton = sio.Skeleton(["left_eye", "nose tip"])
    video = sio.Video.from_filename([str(tmp_path / "a.png")])
    points = np.array([[3.5, 4], [np.nan, np.nan]])
    user = sio.Instance.from_numpy(points, skeleton=skeleton)
    said = sio.PredictedInstance.from_numpy(points, skeleton=skeleton)
    frame = sio.LabeledFrame(video=video, frame_idx=0, instances=[user, said])
    sio.save_slp(sio.Labels([frame]), str(tmp_path / "x.slp"), verbose=False)
    (face,) = read_faces(tmp_path / "x.slp", scheme=PAIR)
    assert face.landmarks is not None
    assert face.landmarks[0].tolist() == [3.5, 4]
    assert np.isnan(face.landmarks[1:]).all()
    assert "1 instance that SLEAP has predicted" in str(recwarn.pop(DataWarning).message)
    frame.video = sio.Video(filename="clip.mp4", open_backend=False)
    sio.save_slp(sio.Labels([frame]), str(tmp_path / "y.slp"), verbose=False)
    with pytest.raises(InputError, match=r"given those of the video clip\.mp4; add the file"):
        read_faces(tmp_path / "y.slp", scheme=PAIR)
    (tmp_path / "z.slp").write_bytes(b"not a file of SLEAP")
    with pytest.raises(InputError, match="sleap-io could not read"):
        read_faces(tmp_path / "z.slp")


def test_the_skeleton_of_sleap_has_edges_and_mirror_pairs(faces: list[FaceSample], tmp_path: Path) -> None:
    import sleap_io as sio

    scheme = load_scheme("ibug-68")
    sample = FaceSample(faces[0].image, landmarks=np.arange(136, dtype=np.float32).reshape(68, 2))
    write_faces(tmp_path / "x.slp", None, [sample], scheme)
    (skeleton,) = sio.load_slp(str(tmp_path / "x.slp"), open_videos=False).skeletons
    assert (skeleton.node_names, len(skeleton.edges)) == (list(scheme.landmarks), len(scheme.edges))
    assert len(skeleton.symmetries) == sum(a < b for a, b in enumerate(scheme.mirror or ()))


def write_image_at(path: Path) -> None:
    path.parent.mkdir(parents=True)
    write_image(path, np.zeros((20, 20, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '[{"data": {"image": 5}}]', "expected an image in its data"),
        ("a.csv", "scorer,anna\nrows,1\n", "expected DeepLabCut's header"),
        ("a.xml", "<annotations><version>1.1</version></annotations>", "expected CVAT's XML"),
        (
            "a.json",
            '{"shapes": [{"label": "n", "points": [["x", 1]], "shape_type": "point"}], "imagePath": "a.jpg"}',
            "expected a number",
        ),
    ],
)
def test_broken_files_are_told_in_one_line(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_faces(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
