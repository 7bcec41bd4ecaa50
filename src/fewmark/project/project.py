"""A project folder: the verbs of its work, as methods."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, write_text
from fewmark.core.geometry import box_of_points
from fewmark.data.formats.io import write_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.face_detection.base import FaceDetector, FullImage, SlimeFaceDetector
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_to_toml
from fewmark.project.adding import Added, add_sources
from fewmark.project.curve import curve_folder, read_last_curve
from fewmark.project.database import Database
from fewmark.project.embedding import MODEL
from fewmark.project.label_check import LabelDoubt, doubtful_labels
from fewmark.project.labels import Face, Labels
from fewmark.project.new_faces import embed_new, predict_new
from fewmark.project.predictions import Predictions, Run
from fewmark.project.queue import QueueItem, QueueKind, make_queue
from fewmark.project.status import MORE, ProjectStatus, project_status

if TYPE_CHECKING:
    from fewmark.inference.detector import Detector
    from fewmark.training.events import Event
    from fewmark.training.faces import TrainingData
    from fewmark.training.learning_curve import LearningCurve
    from fewmark.training.run import RunResult

DATABASE, SETTINGS, SCHEME = "project.sqlite", "project.toml", "scheme.toml"
Objects = Literal["faces", "whole-images"]
LEAST_PAIRS = 3
"""Labelled faces with a detected box from which a training may begin from a model of another scheme."""


class Project:
    """A project folder: images, labels, runs and predictions, and the steps of the work on them.

    The folder holds `project.sqlite` (labels with every change, predictions), `scheme.toml`, `project.toml`, `images/` (copies and frames
    of videos), `runs/` and `exports/`. Images may also stay where they are.

    Args:
        folder: The folder; `Project.create` makes a new one.

    Raises:
        InputError: It is no project folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not is_project(self.folder):
            raise InputError(f"{folder}: no project folder; make one by `fewmark init {folder} --scheme NAME`")
        settings = tomllib.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        self.objects: Objects = settings["objects"]
        self.scheme: LandmarkScheme = load_scheme(self.folder / SCHEME)
        self.database = Database(self.folder / DATABASE)
        self.labels, self.predictions = Labels(self.database), Predictions(self.database)
        self._face_detector: FaceDetector | None = None
        self._embedder: Detector | None = None

    @classmethod
    def create(cls, folder: str | Path, scheme: str | Path | LandmarkScheme, *, objects: Objects = "faces") -> Project:
        """Make a project folder.

        Args:
            folder: An empty folder or a new one.
            scheme: A scheme, the name of a packaged one, or its file; it is copied.
            objects: What is in an image: faces, to be found by the face detector, or one object that fills it, such as a hand.

        Raises:
            InputError: The folder is not empty, or the scheme cannot be read.
        """
        folder = Path(folder)
        landmarks = scheme if isinstance(scheme, LandmarkScheme) else load_scheme(scheme)
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: expected an empty folder or a new one, given one with files in it")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / SCHEME, scheme_to_toml(landmarks))
        write_text(folder / SETTINGS, f'# made by fewmark init\nobjects = "{objects}"\n')
        Database(folder / DATABASE, create=True).close()
        return cls(folder)

    def image_path(self, number: int) -> Path:
        """The file of an image."""
        return self.folder / self.labels.image(number).path  # an absolute path stays what it is

    def add(
        self,
        sources: Sequence[str | Path],
        *,
        copy: bool = False,
        every: int = 1,
        frames: int | None = None,
        who: str | None = None,
        on_image: Callable[[str], None] = lambda name: None,
    ) -> Added:
        """Add images, folders, videos and label files; see `fewmark.project.adding.add_sources`."""
        added = add_sources(
            self.labels,
            self.folder,
            sources,
            self.scheme,
            self.face_detector,
            copy=copy,
            every=every,
            frames=frames,
            who=who or person(),
            on_image=on_image,
        )
        self._look_at_new()
        return added

    def label(
        self,
        face: int,
        landmarks: NDArray[np.float32],
        visibility: NDArray[np.uint8] | None = None,
        *,
        how: Literal["placed", "fixed", "accepted"] = "placed",
        who: str | None = None,
        version: int | None = None,
    ) -> Face:
        """Give a face its label; see `fewmark.project.labels.Labels.change`.

        Raises:
            ConflictError: The face has another version than the person saw.
            InputError: There is no such face, or the landmarks are not (K, 2).
        """
        points = np.asarray(landmarks, np.float32)
        if points.shape != (self.scheme.n_landmarks, 2):
            raise InputError(
                f"face {face}: expected landmarks ({self.scheme.n_landmarks}, 2) of scheme {self.scheme.name}, given {points.shape}"
            )
        if not np.isfinite(points).all(1).any():
            raise InputError(f"face {face}: expected at least one landmark, given none; reject the face if it is none")
        place = box_of_points(points) if self.labels.face(face).box is None else None  # of a face that was not found
        return self.labels.change(
            face, "labelled", how, who or person(), landmarks=points, visibility=visibility, box=place, version=version
        )

    def reject(self, face: int, *, who: str | None = None, version: int | None = None) -> Face:
        """Say that a face is none, or cannot be used; it leaves the unlabelled faces."""
        return self.labels.change(face, "rejected", "rejected", who or person(), version=version)

    def queue(self, n: int = 40, kind: QueueKind = "best", *, seed: int = 0) -> list[QueueItem]:
        """Faces to look at next; see `fewmark.project.queue.make_queue`."""
        return make_queue(self.labels, self.predictions, n, kind, run=self.last_run, seed=seed)

    def doubtful_labels(self) -> list[LabelDoubt]:
        """Labelled faces by the doubt about their labels; see `fewmark.project.label_check.doubtful_labels`.

        Raises:
            InputError: There is no model yet.
        """
        run = self.last_run
        if run is None:
            raise InputError(f"{self.folder}: labels are checked against a model; train one first")
        faces = {f.id: f for f in self.labels.faces("labelled")}
        found = [p for p in self.predictions.predictions(run.id, "labelled") if p.face in faces]
        if not found:
            return []
        truth = np.stack([np.asarray(faces[p.face].landmarks) for p in found])
        points, errors = np.stack([p.landmarks for p in found]), np.stack([p.errors for p in found])
        return doubtful_labels([p.face for p in found], truth, points, errors, self.scheme)

    @property
    def last_run(self) -> Run | None:
        """The last training, or None."""
        runs = self.predictions.runs()
        return runs[-1] if runs else None

    def model_path(self) -> Path:
        """The last model's file.

        Raises:
            InputError: There is none yet.
        """
        run = self.last_run
        if run is None:
            raise InputError(f"{self.folder}: there is no model yet; train one by `fewmark train {self.folder}`")
        return self.folder / "runs" / run.name / "detector.safetensors"

    def train(
        self,
        recipe: str | Path | None = None,
        settings: Sequence[str] = (),
        *,
        start: str | None = None,
        resume: bool = False,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> RunResult:
        """Train on the labels and unlabelled faces, and let the model predict all faces.

        Args:
            recipe: A recipe; None: adapt where the training begins from a model of its network, else what fits the machine.
            settings: Changes of it, such as "semi.mean_teacher=3".
            start: A model to begin from; None: the project's last model, or `ibug-68-free` for faces. "": random weights.
            resume: Go on with the training that was stopped last; labels and settings must be the same.
            on_event: Receives every event of the training.

        Raises:
            InputError: Nothing is labelled, a setting does not fit, or there is no training to go on with.
        """
        from fewmark.project.training import n_to_hold_out, read_recipe
        from fewmark.training.run import train as run_training

        last, n_labelled = self.last_run, self.labels.counts()["labelled"]
        self.labels.hold_out(n_to_hold_out(n_labelled), since=None if last is None else last.at)
        data = self.training_data()
        if not data.labelled:
            raise InputError(f"{self.folder}: no face is labelled yet; label some by `fewmark label {self.folder}`")
        first = self._start(len(data.labelled)) if start is None else start
        config, checkpoint = read_recipe(recipe, settings, first)
        name = self._stopped_run() if resume else self._free_run_name()
        result = run_training(
            config,
            data,
            self.folder / "runs" / name,
            start=checkpoint,
            resume=resume,
            on_event=on_event,
        )
        nme = None if result.scores is None else result.scores.nme
        self._remember_run(name, len(data.labelled) + len(data.validation), nme)
        return result

    def learning_curve(
        self,
        recipe: str | Path | None = None,
        settings: Sequence[str] = (),
        *,
        start: str | None = None,
        counts: Sequence[int] = (),
        n_draws: int = 2,
        n_more: int = MORE,
        on_run: Callable[[int, int], Callable[[Event], None]] = lambda n_labels, draw: lambda event: None,
    ) -> LearningCurve:
        """Train on parts of the labels and fit the errors; see `fewmark.training.curve_runs.measure_learning_curve` and `train`.

        Runs begin from `ibug-68-free`, not from the project's last model, which has seen the faces on which they are measured.
        """
        from fewmark.project.training import check_for_curve, read_recipe
        from fewmark.training.curve_runs import measure_learning_curve
        from fewmark.training.learning_curve import write_curve

        data = self.training_data()
        check_for_curve(self.folder, data)
        first = (MODEL if self._may_start(len(data.labelled)) else "") if start is None else start
        config, checkpoint = read_recipe(recipe, settings, first)
        folder = curve_folder(self.folder, self.labels.last_change())
        found = measure_learning_curve(
            config, data, folder, counts=counts, n_draws=n_draws, start=checkpoint, on_run=on_run
        )
        write_curve(folder, found, n_more)
        return found

    def training_data(self) -> TrainingData:
        """The project's faces as a `TrainingData`, some of them held out once a training had `training.LEAST_TO_HOLD_OUT` labels."""
        from fewmark.project.training import training_data

        return training_data(self.labels, self.scheme, self.image_path, self.labels.held_out())

    def export(self, path: str | Path, fmt: str | None = None) -> int:
        """Write the labels to a file of another format, in one piece.

        Args:
            path: The file, or a folder for pts.
            fmt: csv, pts, coco or dlib; None: by the file's name.

        Returns:
            Number of faces written.

        Raises:
            InputError: No face is labelled, or the format is unknown or cannot hold the labels.
        """
        from fewmark.project.training import to_sample

        faces: list[FaceSample] = []
        for face in self.labels.faces("labelled"):
            sample = to_sample(face, self.image_path(face.image).resolve())
            faces.append(replace(sample, name=sample.image.name))
        if not faces:
            raise InputError(f"{self.folder}: no face is labelled yet; nothing to export")
        write_faces(path, fmt, faces, self.scheme)
        return len(faces)

    def status(self) -> ProjectStatus:
        """What is there, and what to do next."""
        return project_status(self.labels, self.predictions, read_last_curve(self.folder))

    def backup(self, path: str | Path) -> None:
        """Copy the database, while others may write to it, into a new file.

        Raises:
            InputError: The file exists, or cannot be written.
        """
        with atomic_path(path, replace=False) as temporary:
            self.database.backup(temporary)

    def close(self) -> None:
        """Close the database, for this thread."""
        self.database.close()

    @property
    def face_detector(self) -> FaceDetector:
        """Finds faces in new images."""
        if self._face_detector is None:
            self._face_detector = SlimeFaceDetector() if self.objects == "faces" else FullImage()
        return self._face_detector

    def _look_at_new(self) -> None:
        """Give faces that are new their vectors and the last model's predictions."""
        embed_new(self.labels, self.predictions, self.image_path, self._load_embedder)
        run = self.last_run
        if run is not None and self.model_path().is_file():
            predict_new(self.labels, self.predictions, self.image_path, run.id, lambda: self._load_model(run.name))

    def _load_embedder(self) -> Detector | None:
        from fewmark.inference.detector import Detector

        if self._embedder is None and self.objects == "faces":
            self._embedder = Detector(MODEL)
        return self._embedder

    def _load_model(self, name: str) -> Detector:
        from fewmark.inference.detector import Detector

        return Detector.load(self.folder / "runs" / name)

    def _start(self, n_labelled: int) -> str:
        """The model from which a training begins, or ""."""
        if self.last_run is not None:
            return str(self.model_path())
        return MODEL if self._may_start(n_labelled) else ""

    def _may_start(self, n_labelled: int) -> bool:
        return self.objects == "faces" and n_labelled >= LEAST_PAIRS

    def _stopped_run(self) -> str:
        """The name of the last training that did not end."""
        ended = {r.name for r in self.predictions.runs()}
        folders = [p.parent.name for p in (self.folder / "runs").glob("*/config.toml")]
        stopped = sorted(name for name in folders if name not in ended)
        if not stopped:
            raise InputError(f"{self.folder}: there is no training to go on with; leave out --resume")
        return stopped[-1]

    def _free_run_name(self) -> str:
        names = {r.name for r in self.predictions.runs()}
        number = len(names) + 1
        while f"{number:03d}" in names or (self.folder / "runs" / f"{number:03d}").exists():
            number += 1
        return f"{number:03d}"

    def _remember_run(self, name: str, n_labelled: int, nme: float | None) -> None:
        """Keep a run and what its model says of all faces."""
        from fewmark.project.training import predict_faces

        found = predict_faces(self._load_model(name), list(self.labels.faces()), self.image_path)
        with atomic_path(self.folder / "detector.safetensors") as temporary:  # the project is a model, too
            shutil.copyfile(self.folder / "runs" / name / "detector.safetensors", temporary)
        run = self.predictions.add_run(name, n_labelled, nme, calibrated=found.calibrated)
        self.predictions.set_predictions(run, found.each)


def is_project(folder: str | Path) -> bool:
    """Whether a folder is a project's."""
    return all((Path(folder) / name).is_file() for name in (DATABASE, SETTINGS, SCHEME))


def person() -> str:
    """The name under which a change is kept where nobody gave one."""
    try:
        return getuser()
    except (KeyError, OSError, ImportError):  # no such user in this container
        return "unknown"


@contextmanager
def open_project(folder: str | Path) -> Iterator[Project]:
    """A project that is closed in the end."""
    project = Project(folder)
    try:
        yield project
    finally:
        project.close()
