"""A project folder by its verbs: add, label, queue, train, check, export."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewmark import DataWarning, Project, read_faces, write_faces
from fewmark.core.errors import InputError
from fewmark.data.formats.pts import write_pts
from fewmark.data.images import read_image, write_image
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.project.choice import farthest_first, typical
from fewmark.project.label_check import doubtful_labels
from fewmark.project.training import n_to_hold_out
from fewmark.video.writer import VideoWriter


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "faces", "ibug-68", objects="whole-images")


def images_of(synthetic: Path, n: int = 6) -> list[Path]:
    return sorted((synthetic / "images").iterdir())[:n]


def test_images_are_added_once_and_stay_where_they_are(project: Project, synthetic: Path, tmp_path: Path) -> None:
    files = images_of(synthetic)
    added = project.add(files)
    assert (added.images, added.faces, added.labelled) == (6, 6, 0)
    assert project.image_path(1) == files[0]
    copy = tmp_path / "another name.jpg"
    shutil.copy(files[0], copy)
    again = project.add([copy, files[1]])
    assert (again.images, len(again.duplicates)) == (0, 2)
    assert not (project.folder / "images").exists()


def test_copies_are_in_the_project_and_survive_the_originals(project: Project, synthetic: Path, tmp_path: Path) -> None:
    original = tmp_path / "wörk/näme with space.jpg"
    original.parent.mkdir()
    shutil.copy(images_of(synthetic)[0], original)
    project.add([original], copy=True)
    original.unlink()
    path = project.image_path(1)
    assert path.is_relative_to(project.folder / "images")
    assert read_image(path).shape == (64, 64, 3)
    moved = project.folder.rename(tmp_path / "moved")
    assert read_image(Project(moved).image_path(1)).shape == (64, 64, 3)


def test_labels_of_a_file_are_imported_and_never_over_a_persons(project: Project, synthetic: Path) -> None:
    truth = {f.name: f for f in read_faces(synthetic)}
    project.add([synthetic], who="anna")
    assert project.status().n_by_how == {"imported": 14}
    face = project.labels.face(1)
    image = project.image_path(face.image)
    assert face.landmarks is not None
    expected = truth[f"images/{image.name}"].landmarks
    assert expected is not None
    assert face.landmarks == pytest.approx(expected, abs=1e-3)
    assert project.labels.history(1)[0].who == "anna"
    mine = face.landmarks + 2
    project.label(1, mine, how="fixed")
    project.reject(2)
    again = project.add([synthetic])
    assert again.labelled == 0
    assert project.labels.face(1).landmarks == pytest.approx(mine)
    assert project.labels.face(2).state == "rejected"


@pytest.mark.parametrize("beside", ["labelme", "pts"])
def test_labels_beside_images_come_with_them(beside: str, project: Project, synthetic: Path, tmp_path: Path) -> None:
    faces = read_faces(synthetic)[:3]
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, face in enumerate(faces):
        shutil.copy(face.image, folder / f"{i}.jpg")
    copied = [replace(face, image=folder / f"{i}.jpg") for i, face in enumerate(faces[:2])]
    if beside == "labelme":
        write_faces(folder, "labelme", copied, project.scheme)
    for face in copied if beside == "pts" else []:
        assert face.landmarks is not None
        write_pts(face.image.with_suffix(".pts"), face.landmarks)
    (folder / "2.json").write_text('{"exposure": 3}')  # of something else
    added = project.add([folder])
    assert (added.images, added.labelled, project.status().n_unlabelled) == (3, 2, 1)
    found = project.labels.face(1).landmarks
    assert found is not None
    assert found == pytest.approx(faces[0].landmarks, abs=1e-3)
    other = Project.create(tmp_path / "other", "mtfl-5", objects="whole-images")
    with pytest.warns(DataWarning, match="0.jpg is added without this label"):
        assert (other.add([folder]).images, other.status().n_labelled) == (3, 0)  # the labels are of another scheme


def test_frames_of_a_video_every_nth_or_most_unlike(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 10.0) as writer:
        for i in range(20):
            image = np.full((48, 64, 3), 60 + 2 * i, np.uint8)  # no two frames are the same
            if i in (7, 13):  # two frames unlike the others and each other
                cv2.circle(image, (20 if i == 7 else 44, 24), 12, (250, 250, 250), -1)
            writer.write(image, i / 10)
    added = project.add([path], every=5)
    assert added.images == 4
    assert [project.labels.image(i).frame for i in range(1, 5)] == [0, 5, 10, 15]
    assert project.image_path(1).parent == project.folder / "images"
    other = Project.create(tmp_path / "other", "ibug-68", objects="whole-images")
    other.add([path], frames=3)
    frames = {other.labels.image(i).frame for i in range(1, 4)}
    assert {7, 13} <= frames


def test_unreadable_images_stop_nothing(project: Project, synthetic: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing more")
    added = project.add([bad, images_of(synthetic)[0]])
    assert added.images == 1
    assert added.unreadable[0][0] == str(bad)


@pytest.mark.parametrize("embed", [False, True])
def test_labelled_frames_of_sleap(embed: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Frames 2 and 5 of a video, beside the file or embedded in it; frame 80 is not there."""
    sio = pytest.importorskip("sleap_io", reason='needs sleap-io: pip install "fewmark[tools]"')
    video = tmp_path / "clip.mp4"
    with VideoWriter(video, 10.0) as writer:
        for i in range(8):
            writer.write(np.tile(np.array([25 * i, 200 - 25 * i, 90], np.uint8), (64, 96, 1)), i / 10)
    skeleton = sio.Skeleton(["tip", "base"])
    clip = sio.Video.from_filename(str(video))
    frames = [
        sio.LabeledFrame(
            video=clip, frame_idx=i, instances=[sio.Instance.from_numpy(np.array([[i, 4], [30, 31.5]]), skeleton)]
        )
        for i in ([2, 5] if embed else [2, 5, 80])
    ]
    file = tmp_path / ("x.pkg.slp" if embed else "x.slp")
    sio.save_slp(sio.Labels(frames), str(file), embed="user" if embed else False, verbose=False)
    if embed:
        video.unlink()
    project = Project.create(tmp_path / "p", LandmarkScheme("pair", ("base", "tip")), objects="whole-images")
    added = project.add([file])
    assert (added.images, added.labelled) == (2, 2)
    for number, index in ((1, 2), (2, 5)):
        (face,) = project.labels.faces(image=number)
        assert face.landmarks is not None
        assert face.landmarks.tolist() == [[30, 31.5], [index, 4]]
        colour = read_image(project.image_path(number)).mean((0, 1))
        assert colour == pytest.approx([25 * index, 200 - 25 * index, 90], abs=6)
    told = [str(w.message) for w in recwarn if "cannot be read" in str(w.message)]
    assert len(told) == (0 if embed else 1)
    project.close()


def test_an_image_without_a_face_waits_to_be_placed(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", "ibug-68")
    plain = tmp_path / "plain.png"
    write_image(plain, np.full((90, 90, 3), 120, np.uint8))
    added = project.add([plain])
    assert added.without_face == [str(plain)]
    assert project.labels.face(1).box is None
    assert project.queue(5)[0].reason == "no face was found in this image"
    points = np.random.default_rng(0).uniform(20, 70, (68, 2)).astype(np.float32)
    box = project.label(1, points).box
    assert box is not None
    assert box == pytest.approx(np.concatenate([points.min(0), points.max(0)]))


def test_a_wrong_label_is_refused_in_one_line(project: Project, synthetic: Path) -> None:
    project.add(images_of(synthetic, 1))
    with pytest.raises(InputError, match=r"face 1: expected landmarks \(68, 2\) of scheme ibug-68, given \(5, 2\)"):
        project.label(1, np.zeros((5, 2), np.float32))
    with pytest.raises(InputError, match="at least one landmark"):
        project.label(1, np.full((68, 2), np.nan, np.float32))


def test_the_first_queue_stands_for_all(project: Project, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        image = np.full((40, 40, 3), 40, np.uint8)
        kind = i % 3  # three kinds of images
        image[:, :14] = (200, 60, 60) if kind == 0 else (60, 200, 60) if kind == 1 else (60, 60, 200)
        image += rng.integers(0, 6, image.shape).astype(np.uint8)
        write_image(tmp_path / f"{i:02d}.png", image)
    project.add([tmp_path / f"{i:02d}.png" for i in range(12)])
    first = project.queue(3)
    assert {(item.face - 1) % 3 for item in first} == {0, 1, 2}
    assert {item.reason for item in first} == {"stands for others like it"}
    assert {item.reason for item in project.queue(3, "centres")} == {"unlike the others"}
    points = np.random.default_rng(0).uniform(0, 39, (68, 2)).astype(np.float32)
    project.label(first[0].face, points)
    after = project.queue(2)
    assert first[0].face not in {item.face for item in after}
    assert {(item.face - 1) % 3 for item in after} == {0, 1, 2} - {(first[0].face - 1) % 3}
    assert {i.face for i in project.queue(11, "random", seed=1)} == set(range(1, 13)) - {first[0].face}


def test_k_centres_cover_the_vectors() -> None:
    rng = np.random.default_rng(1)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    vectors = np.concatenate([c + rng.normal(0, 0.3, (25, 2)) for c in centres]).astype(np.float32)
    chosen = farthest_first(vectors, 4)
    assert sorted(i // 25 for i in chosen) == [0, 1, 2, 3]
    assert len(set(farthest_first(vectors, 100))) == 100
    assert len(farthest_first(vectors, 200, taken=[3])) == 99


def test_typical_ones_stand_in_the_middle_of_groups() -> None:
    rng = np.random.default_rng(1)
    centres, sizes = np.array([[0, 0], [10, 0], [0, 10]], np.float32), (60, 30, 10)
    vectors = np.concatenate([c + rng.normal(0, 0.5, (n, 2)) for c, n in zip(centres, sizes, strict=True)])
    vectors = np.concatenate([vectors, [[14, 14]]]).astype(np.float32)  # like no other
    chosen = typical(vectors, 4)
    assert chosen[-1] == 100  # the largest group's first
    for index, centre in zip(chosen, centres, strict=False):
        assert np.linalg.norm(vectors[index] - centre) < 0.4
    after = typical(vectors, 2, taken=chosen[:2])
    assert set(after) == set(chosen[2:])  # no group is taken twice
    weights = np.where(np.arange(101) == 30, 1e6, 1).astype(np.float32)
    assert 30 in typical(vectors, 3, weights=weights)
    assert sorted(typical(vectors, 500, taken=[4])) == [i for i in range(101) if i != 4]
    same = np.zeros((9, 2), np.float32)
    assert len(set(typical(same, 4, taken=[0]))) == 4


def test_no_gain_is_promised_that_trainings_do_not_show(project: Project, synthetic: Path) -> None:
    project.add([synthetic])
    for name, n, nme in (("1", 100, 0.036), ("2", 120, 0.037), ("3", 140, 0.037)):
        project.predictions.add_run(name, n, nme, calibrated=True)
    project.labels.restore(1, 0, "anna")  # a face to review
    status = project.status()
    assert status.gain is not None
    assert status.gain[1] < 0
    assert status.next_command == "review"
    assert "lower the error" not in status.why


def test_held_out_faces_stay_held_out(project: Project, synthetic: Path) -> None:
    project.add([synthetic])
    assert project.labels.hold_out(n_to_hold_out(14)) == set()
    first = project.labels.hold_out(4)
    assert len(first) == 4
    assert first < project.labels.hold_out(6)
    gone = min(first)
    project.reject(gone)
    assert project.labels.held_out().isdisjoint({gone})
    assert len(project.labels.hold_out(6)) == 6
    data = project.training_data()
    assert {s.name for s in data.validation} == {str(n) for n in project.labels.held_out()}
    assert len(data.labelled) == 13 - 6


def test_faces_that_a_model_has_seen_are_not_held_out(project: Project, synthetic: Path) -> None:
    project.add(images_of(synthetic, 12))
    points = np.random.default_rng(0).uniform(10, 50, (68, 2)).astype(np.float32)
    for face in range(1, 7):
        project.label(face, points)
    project.predictions.add_run("001", 6, None, calibrated=False)
    since = project.predictions.runs()[-1].at
    assert project.labels.hold_out(4, since=since) == set()  # all six were learned from
    time.sleep(0.01)  # times are in milliseconds
    for face in range(1, 13):
        project.label(face, points + 1, how="fixed")
    held = project.labels.hold_out(4, since=since)
    assert len(held) == 3  # half of those that are new
    assert held <= set(range(7, 13))
    assert project.labels.hold_out(4, since=since) == held


@pytest.fixture(scope="module")
def trained(synthetic: Path, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.create(tmp_path_factory.mktemp("trained") / "p", "ibug-68", objects="whole-images")
    project.add([synthetic])
    for face in range(9, 15):
        project.labels.restore(face, 0, "anna")  # six of them are not labelled any more
    project.train(tiny_recipe, ["semi.rounds=0"], start="")
    return project


def test_a_training_takes_the_labels_and_predicts_all(trained: Project) -> None:
    (run,) = trained.predictions.runs()
    assert (run.name, run.n_labelled, run.nme, run.calibrated) == ("001", 8, None, False)
    assert len(list(trained.predictions.predictions(run.id))) == 14
    assert trained.model_path() == trained.folder / "runs/001/detector.safetensors"
    said = trained.predictions.prediction(run.id, 9)
    assert said is not None
    assert said.landmarks.shape == (68, 2)
    assert (trained.folder / "detector.safetensors").read_bytes() == trained.model_path().read_bytes()
    queue = trained.queue(3)
    assert len({item.face for item in queue}) == 3
    assert all(item.face >= 9 for item in queue)
    assert "views disagree by" in queue[0].reason
    assert trained.status().next_command == "review"


def test_faces_that_are_added_later_are_predicted(trained: Project, tmp_path: Path) -> None:
    new = tmp_path / "new.png"
    write_image(new, np.random.default_rng(5).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    trained.add([new])
    (item,) = (i for i in trained.queue(40) if trained.image_path(trained.labels.face(i.face).image) == new)
    assert "views disagree by" in item.reason
    said = trained.predictions.prediction(1, item.face)
    assert said is not None
    assert said.landmarks.shape == (68, 2)
    assert trained.labels.face(item.face).landmarks is None
    with trained.database.transaction() as db:
        db.execute("DELETE FROM predictions WHERE face = ?", (item.face,))
    (item,) = (i for i in trained.queue(40) if i.face == item.face)
    assert item.reason == "added since the last training"  # a face without a prediction is not forgotten
    trained.reject(item.face)


def test_the_next_training_goes_on_from_the_last(trained: Project, tiny_recipe: Path) -> None:
    starts: list[Any] = []
    said = trained.predictions.prediction(1, 9)
    assert said is not None
    trained.label(9, said.landmarks, how="accepted")
    trained.train(tiny_recipe, ["semi.rounds=0"], on_event=starts.append)
    assert [r.n_labelled for r in trained.predictions.runs()] == [8, 9]
    assert trained.status().n_by_how == {"imported": 8, "accepted": 1}
    assert trained.model_path().parent.name == "002"


def test_labels_are_exported_and_come_back_the_same(trained: Project, tmp_path: Path) -> None:
    for fmt, name in (("csv", "out.csv"), ("coco", "out.json"), ("dlib", "out.xml")):
        assert trained.export(tmp_path / name, fmt) == trained.status().n_labelled
        other = Project.create(tmp_path / fmt, "ibug-68", objects="whole-images")
        other.add([tmp_path / name])
        assert other.status().n_labelled == trained.status().n_labelled
        for face in other.labels.faces("labelled"):
            number = next(
                f.id
                for f in trained.labels.faces("labelled")
                if trained.image_path(f.image) == other.image_path(face.image)
            )
            exact = 0.5 if fmt == "dlib" else 0.01  # dlib has whole px
            assert face.landmarks == pytest.approx(trained.labels.face(number).landmarks, abs=exact)


def test_planted_faults_come_first() -> None:
    from fewmark import load_scheme
    from fewmark.data.synthetic.faces import render_faces

    scheme = load_scheme("ibug-68")
    rng = np.random.default_rng(2)
    truth = np.stack([f.landmarks for f in render_faces(120, scheme, 5, size=128)])
    predicted = truth + rng.normal(0, 1.2, truth.shape)
    labels = truth + rng.normal(0, 0.5, truth.shape)
    labels[3, [36, 45]] = labels[3, [45, 36]]  # a mirror pair exchanged
    labels[50, 48:68] += 7  # the mouth
    labels[77, 30] += 13  # a tenth of the face
    labels[90, 0:17] = np.nan  # a component is missing
    labels[91, 40] = np.nan
    errors = np.full(labels.shape[:2], 0.01)
    found = doubtful_labels(list(range(120)), labels, predicted, errors, scheme)
    assert {d.face for d in found[:3]} == {3, 50, 77}
    by_face = {d.face: d for d in found}
    assert "exchanged" in by_face[3].reason
    assert set(by_face[3].landmarks) == {36, 45}
    assert "mouth: shifted as a whole" in by_face[50].reason
    assert by_face[77].landmarks[0] == 30
    assert len(found) == 120


def test_labels_are_checked_against_a_model(trained: Project, project: Project) -> None:
    assert len(trained.doubtful_labels()) == trained.status().n_labelled
    with pytest.raises(InputError, match="train one first"):
        project.doubtful_labels()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewmark init"):
        Project(tmp_path)
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(InputError, match="empty folder"):
        Project.create(tmp_path, "ibug-68")
    assert (tmp_path / "file.txt").read_text() == "mine"
