"""A cascade as a product: trained by a run and by the command line, kept in a model file, resumed, inspected, detected with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from fewmark import TrainingData, train
from fewmark.core.errors import InputError
from fewmark.data.crops import CropRule
from fewmark.data.lists import read_training_lists
from fewmark.inference.cascade.angle import AngleStage
from fewmark.inference.cascade.coarse import CoarsePart, CoarseStage
from fewmark.inference.cascade.component import ComponentStage
from fewmark.inference.cascade.frames import scheme_mean_face
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.point import PatchLayout, PointStage
from fewmark.inference.cascade.predict import run_cascade, run_stages
from fewmark.inference.cascade.state import FaceState, Image
from fewmark.inference.checkpoint.io import Checkpoint, load_checkpoint, save_checkpoint
from fewmark.inference.checkpoint.metadata import METADATA_KEY, read_metadata
from fewmark.inference.detector import Detector
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.training import fit as fitting
from fewmark.training.cascade import fit_stage
from fewmark.training.cascade import plans as training_plans
from fewmark.training.cascade.run import CascadeOptions, check_cascade
from fewmark.training.config import load_config
from fewmark.training.settings import Config
from fewmark.training.work_plan import plan_training

SCHEME = load_scheme("ibug-68")
TINY = ["run.threads=1", "crop.size=32", "cascade.length=0.004", "synthetic.faces=4"]


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_plans, "BATCH_SIZE", 4)
        patch.setattr("fewmark.training.cascade.run.BATCH_SIZE", 4)
        yield


@pytest.fixture(scope="module")
def data(synthetic: Path) -> TrainingData:
    lists = read_training_lists(synthetic, synthetic / "few.txt", [], synthetic / "val.txt", scheme=SCHEME)
    return TrainingData(SCHEME, lists.labelled, lists.unlabelled, lists.validation)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("cascade", TINY)


@pytest.fixture(scope="module")
def run(data: TrainingData, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade") / "run"
    events: list[dict[str, Any]] = []
    train(config, data, folder, on_event=events.append)
    (folder / "events.json").write_text(json.dumps(events), encoding="utf-8")
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


LABELLED = [
    "angle",
    "coarse",
    *(f"component_{c}" for c in ("left_eyebrow", "right_eyebrow", "nose", "left_eye", "right_eye", "mouth")),
    "point",
]
NAMES = [name for training in LABELLED for name in (f"synthetic_{training}", training)]


def test_the_run_folder(run: Path, config: Config, data: TrainingData) -> None:
    assert load_config(run / "config.toml") == config
    records = lines(run / "metrics.jsonl")
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert list(dict.fromkeys(e["name"] for e in epochs)) == NAMES
    assert all(np.isfinite(e["loss"]) for e in epochs)
    stages = [r for r in records if r["kind"] == "stage"]
    assert [s["stage"] for s in stages] == ["angle", "coarse", "component", "point"]
    assert 0 <= stages[0]["within_5_degrees"] <= 1
    accuracy = read_metadata(run / "detector.safetensors")["accuracy"][0]
    assert accuracy["stages"] == {s["stage"]: s["val_nme"] for s in stages[1:]}
    assert accuracy["nme"] == pytest.approx(stages[-1]["val_nme"], rel=1e-4)  # measured as it detects
    assert {p.stem for p in (run / "state").iterdir()} == {"images", "synthetic", *NAMES}
    report = (run / "report.html").read_text(encoding="utf-8")
    for words in ("<svg", "a cascade from 4 labelled faces", "NME after coarse", "component: training loss", "Worst"):
        assert words in report, words


def test_the_labels_bias_is_added(run: Path, data: TrainingData) -> None:
    checkpoint = replace(load_checkpoint(run / "detector.safetensors"), label_bias=None)
    bias = np.zeros((68, 2))
    bias[:, 0], bias[30, 1] = 0.02, -0.01
    sample = data.validation[0]
    box = np.asarray([sample.face_box()])
    plain, moved = (
        Detector(c).detect(sample.image, box)[0].landmarks for c in (checkpoint, replace(checkpoint, label_bias=bias))
    )
    np.testing.assert_allclose(moved - plain, bias * np.ptp(plain, axis=0).max(), atol=1e-3)


def test_the_work_plan_names_the_trainings_of_a_run(run: Path, config: Config) -> None:
    plan = plan_training(config, SCHEME, 4, 0)
    assert plan.order == NAMES
    events = json.loads((run / "events.json").read_text(encoding="utf-8"))
    assert [e["name"] for e in events if e["kind"] == "training"] == NAMES
    for event in events:
        if event["kind"] == "epoch":
            plan.epoch(event)
    assert plan.finished == pytest.approx(plan.total)
    few, many = (
        {p.name: p for p in training_plans.cascade_trainings(load_config("cascade"), SCHEME, n)} for n in (8, 4000)
    )
    assert few["coarse"].n_epochs * few["coarse"].n_batches == training_plans.MIN_BATCHES
    assert many["coarse"].n_epochs == fit_stage.STAGE_EPOCHS["coarse"]
    seen = many["synthetic_coarse"].n_epochs * many["synthetic_coarse"].n_faces
    length = load_config("cascade").synthetic.length
    assert seen == pytest.approx(length * 4000 * many["coarse"].n_epochs, rel=0.02)
    assert "synthetic_coarse" not in {
        p.name for p in training_plans.cascade_trainings(load_config("cascade", ["synthetic.faces=0"]), SCHEME, 8)
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(folder / "detector.safetensors"))


def stop_at(name: str, epoch: int) -> Callable[[dict[str, Any]], None]:
    def emit(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch" and (event["name"], event["epoch"]) == (name, epoch):
            raise KeyboardInterrupt

    return emit


@pytest.mark.parametrize("where", [("coarse", 2), ("component_nose", 1)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    where: tuple[str, int],
    run: Path,
    data: TrainingData,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", 0.0)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config, data, folder, on_event=stop_at(*where))
    assert not (folder / "detector.safetensors").exists()
    train(config, data, folder, resume=True)
    whole, resumed = weights(run), weights(folder)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    longer = load_config("cascade", [*TINY, "cascade.length=7.5", "run.threads=3"])
    with pytest.raises(InputError, match=r"other settings.*: cascade\.length was [\d.]+, now 7\.5; give"):
        train(longer, data, folder, resume=True)


def test_one_training_again_alone(run: Path, data: TrainingData, config: Config) -> None:
    before = weights(run)
    (run / "state/component_nose.safetensors").unlink()
    reported: list[str] = []
    train(
        config,
        data,
        run,
        resume=True,
        on_event=lambda e: reported.append(e["name"]) if e["kind"] == "training" else None,
    )
    assert reported == ["component_nose"]
    after = weights(run)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_options(data: TrainingData, tmp_path: Path) -> None:
    """Contour and inner points apart, single networks, real output in training; nothing held out; unlabelled faces are noted."""
    options = CascadeOptions(twin=False, separate_contour=True, coarse_share=0.5, augment_coarse=False)
    reported: list[dict[str, Any]] = []
    faces = TrainingData(SCHEME, data.labelled, data.validation, [])
    config = load_config("cascade", [*TINY, "cascade.stages=['coarse', 'component']"])
    result = train(config, faces, tmp_path / "run", on_event=reported.append, cascade_options=options)
    assert result.scores is None
    assert [e["text"] for e in reported if e["kind"] == "note"] == [
        "a cascade learns from labels alone: 4 unlabelled faces are not used"
    ]
    assert result.checkpoint.counts == {"labelled": 4, "pseudo": 0, "unlabelled": 0}
    assert {p.stem for p in (tmp_path / "run/state").iterdir()} >= {"coarse_0", "coarse_1", "component_mouth"}
    coarse = load_checkpoint(result.path).cascade.stage("coarse")  # type: ignore[union-attr]
    assert isinstance(coarse, CoarseStage)
    assert [len(p.landmarks) for p in coarse.parts] == [17, 51]


def test_train_inspect_evaluate_detect(cli: Any, synthetic: Path, tmp_path: Path) -> None:
    words = [
        "train",
        synthetic,
        "--labelled",
        synthetic / "few.txt",
        "--val",
        synthetic / "val.txt",
        "--scheme",
        "ibug-68",
    ]
    words += ["--recipe", "cascade", "--out", tmp_path / "run"]
    words += [w for s in (*TINY, "cascade.length=0.001") for w in ("--set", s)]
    text = cli(*words).stdout
    for part in ("% of the angles within 5 degrees", "after coarse NME", "after point NME", "by outer-eye-corners"):
        assert part in text
    model = tmp_path / "run/detector.safetensors"
    shown = " ".join(cli("inspect", model).stdout.split())
    for part in (
        "angle: 1 network",
        "coarse: 1 network for 68 landmarks, crop 32 px",
        "component: 6 networks (left_eyebrow,",
        "point: 153 networks for 51 landmarks and their 3, 5, 7 nearest",
        "M multiply-adds",
        "after coarse ",
        "4 labelled",
    ):
        assert part in shown
    data = cli.json("inspect", model)
    assert [s["kind"] for s in data["cascade"]] == ["angle", "coarse", "component", "point"]
    assert all(s["n_multiply_adds"] > 1e6 for s in data["cascade"])
    for box in ("gt", "detect"):
        scores = cli.json("evaluate", model, synthetic, "--list", synthetic / "val.txt", "--box", box)
        assert scores["n_faces"] == 4
    out = tmp_path / "out"
    cli("detect", model, synthetic / "images", "--boxes", synthetic / "annotations.csv", "--out", out, "--overlay")
    face = json.loads((out / "faces.json").read_text(encoding="utf-8"))["pictures"][0]["faces"][0]
    assert all(0 < s <= 1 for s in face["scores"])
    assert -180 < face["angle"] <= 180
    assert len(face["landmarks"]) == 68


def small_cascade(seed: int = 0) -> Cascade:
    """All four kinds with fresh weights."""
    mean = scheme_mean_face(SCHEME)
    angle = AngleStage(SCHEME, NetworkPart.make("angle", {"widths": (8, 8)}, seed), CropRule(24, 0.2))
    arguments: dict[str, Any] = {"n_landmarks": 68, "widths": (8, 8, 8), "n_modules": (1, 1), "grid": 2}
    coarse_part = CoarsePart(tuple(range(68)), NetworkPart.make("coarse", arguments, seed))
    module: Any = coarse_part.network.module
    module.start_from(torch.from_numpy((mean - 0.5) / 1.3).float())
    components = {
        name: NetworkPart.make(
            "component", {"n_landmarks": len(SCHEME.components[name]), "widths": (8,), "n_convs": (1,)}
        )
        for name in ("nose", "mouth")
    }
    layout = PatchLayout.of_scheme(SCHEME, mean, (3, 5), 10, 0.7)
    patches = {"n_points": 51, "neighbours": (3, 5), "widths": (4,), "n_convs": (1,), "grid": 2}
    return Cascade(
        (
            angle,
            CoarseStage(SCHEME, (coarse_part,), CropRule(32, 0.15)),
            ComponentStage(SCHEME, components, mean, 24, 0.3),
            PointStage(SCHEME, NetworkPart.make("point", patches, seed), layout),
        )
    )


def checkpoint_of(cascade: Cascade) -> Checkpoint:
    return Checkpoint(SCHEME, [], CropRule(32, 0.15), cascade=cascade)


def scene(seed: int = 0, shape: tuple[int, int] = (120, 160)) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8)


BOX = np.array([50, 30, 110, 90], np.float32)


def test_a_model_file_holds_it_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(small_cascade())
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, checkpoint)
    again = load_checkpoint(path)
    assert again.to_metadata() == checkpoint.to_metadata()
    assert read_metadata(path)["students"] == []
    for passes in (1, 2):
        (a,), (b,) = (Detector(c).detect(scene(), BOX[None], passes=passes) for c in (checkpoint, again))
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
        assert a.angle == b.angle != 0
        assert np.isnan(a.scores).all()
    save_checkpoint(tmp_path / "half.safetensors", checkpoint, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < path.stat().st_size
    (c,) = Detector.load(tmp_path / "half.safetensors").detect(scene(), BOX[None])
    np.testing.assert_allclose(c.landmarks, Detector(checkpoint).detect(scene(), BOX[None])[0].landmarks, atol=0.5)


def broken(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    tensors = dict(safetensors.torch.load_file(path))
    data = read_metadata(path)
    change(data, tensors)
    target = path.with_name("broken.safetensors")
    target.write_bytes(safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(data)}))
    return target


def drop(key: str) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], None]:
    def change(data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        del tensors[key]

    return change


def shorten(data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    data["scheme"]["components"]["nose"] = data["scheme"]["components"]["nose"][:-1]


TENSOR = "cascade.angle.angle.hidden.bias"
BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], None], str]] = {
    "missing tensor": (drop(TENSOR), r"tensor cascade\.angle\.angle\.hidden\.bias: expected \(64,\), given none"),
    "odd shape": (lambda d, t: t.update({TENSOR: torch.zeros(3)}), r"expected \(64,\), given \(3,\)"),
    "odd tensor": (lambda d, t: t.update({"cascade.ear.x": torch.zeros(3)}), "cascade.ear.x: belongs to no stage"),
    "unknown kind": (lambda d, t: d["cascade"][0].update(kind="wing"), "unknown kind of stage 'wing'"),
    "order": (lambda d, t: d["cascade"].reverse(), "in this order, given .'point', 'component', 'coarse', 'angle'"),
    "field": (lambda d, t: d["cascade"][2].pop("mean_face"), "metadata is missing or wrong"),
    "other scheme": (shorten, "component nose stage: expected a network for 8 landmarks of ibug-68, given one for 9"),
    "neither": (lambda d, t: d.update(cascade=None), "at least one student, or a cascade, given 0 students and no"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_named(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, checkpoint_of(small_cascade()))
    change, message = BROKEN[what]
    with pytest.raises(InputError, match=message) as raised:
        load_checkpoint(broken(path, change))
    assert "broken.safetensors" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_cascade_of_another_scheme_is_not_saved(tmp_path: Path) -> None:
    other = replace(checkpoint_of(small_cascade()), scheme=load_scheme("mtfl-5"))
    with pytest.raises(InputError, match=r"trained for scheme ibug-68, not for mtfl-5"):
        save_checkpoint(tmp_path / "a.safetensors", other)


def test_a_batch_is_its_faces_one_by_one_and_large_images_are_cut() -> None:
    detector = Detector(checkpoint_of(small_cascade()))
    large = np.tile(scene(1), (8, 8, 1))
    boxes = [np.stack([BOX, BOX + 5]), BOX[None] + 300]
    batch = detector.detect_batch([scene(), large], boxes)
    assert [len(b) for b in batch] == [2, 1]
    for image, given, faces in zip((scene(), large), boxes, batch, strict=True):
        for box, face in zip(given, faces, strict=True):
            (alone,) = detector.detect(image, box[None])
            np.testing.assert_allclose(face.landmarks, alone.landmarks, atol=1e-2)
            assert face.angle == pytest.approx(alone.angle, abs=1e-2)


def test_flips_make_a_mirrored_image_the_mirror_of_the_answer() -> None:
    """With flips, the answer for the mirrored image is the mirrored answer; without them it is not."""
    cascade, image = small_cascade().without("angle"), scene(2, (121, 161))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    box = np.array([160 - BOX[2], BOX[1], 160 - BOX[0], BOX[3]], np.float32)
    for flip in (True, False):
        (a,), (b,) = (run_cascade(cascade, [p], [FaceState(g)], flip=flip) for p, g in ((image, BOX), (mirrored, box)))
        assert a.landmarks is not None
        assert b.landmarks is not None
        back = (b.landmarks * [-1, 1] + [160, 0])[list(SCHEME.mirror or ())]
        apart = float(np.abs(back - a.landmarks).max())
        assert (apart < 0.3) == flip, apart
    states = run_stages(cascade, [image], [FaceState(BOX)], flip=True)
    assert list(states) == ["coarse", "component", "point"]
    np.testing.assert_array_equal(states["point"][0].box_xyxy, BOX)


class Knows:
    """A stage that tells given landmarks, in the image that it is shown."""

    name, scheme = "coarse", SCHEME

    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, images: Any, faces: list[FaceState]) -> list[FaceState]:
        self.seen += [f.angle for f in faces]
        mean = scheme_mean_face(SCHEME)
        turn = np.radians(40.0)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        points = []
        for f in faces:
            box = np.asarray(f.box_xyxy, np.float64)
            points.append((((mean - 0.5) @ rotation.T) * 0.9 + 0.5) * (box[2:] - box[:2]).max() + box[:2])
        return [replace(f, landmarks=p.astype(np.float32)) for f, p in zip(faces, points, strict=True)]


def test_the_second_pass_starts_from_the_angle_of_the_landmarks() -> None:
    """Face turned by 40 degrees: the first pass is reported what the angle stage says, the second one 40."""
    knows, cascade = Knows(), small_cascade()
    detector = Detector(checkpoint_of(cascade))
    detector.predictor.checkpoint = replace(detector.checkpoint, cascade=Cascade((cascade.stages[0], knows)))
    (face,) = detector.detect(scene(), BOX[None], passes=2, flip=False)
    assert len(knows.seen) == 2
    assert abs(knows.seen[0] - 40) > 1
    assert knows.seen[1] == pytest.approx(40, abs=0.5)
    assert face.angle == pytest.approx(40, abs=0.5)
    still = Knows()
    detector.predictor.checkpoint = replace(detector.checkpoint, cascade=Cascade((still,)))
    (face,) = detector.detect(scene(), BOX[None], passes=2)
    assert set(still.seen) == {0.0}
    assert face.angle == 0.0


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (-30, -20, 20, 30), (140, 100, 200, 160), (-500, -500, 700, 700)])
def test_faces_of_8_px_and_at_the_edge_have_landmarks(box: tuple[float, ...]) -> None:
    (face,) = Detector(checkpoint_of(small_cascade())).detect(scene(), np.array([box], np.float32))
    assert np.isfinite(face.landmarks).all()


def bare(components: bool, mean: bool) -> LandmarkScheme:
    return replace(
        SCHEME,
        name="bare",
        components=dict(SCHEME.components) if components else {},
        mean_face=SCHEME.mean_face if mean else None,
    )


@pytest.mark.parametrize(
    ("scheme", "settings", "options", "message"),
    [
        (bare(False, True), [], CascadeOptions(), "scheme bare has no components but the contour"),
        (
            bare(False, True),
            ["cascade.stages=['coarse']"],
            CascadeOptions(separate_contour=True),
            "bare: expected a component `contour`",
        ),
        (bare(True, False), [], CascadeOptions(), "scheme bare has no mean face"),
        (
            SCHEME,
            ["crop.size=50"],
            CascadeOptions(),
            "crop.size: the cascade's coarse network needs a multiple of 16 px, given 50; take 48",
        ),
        (SCHEME, ["crop.size=24"], CascadeOptions(size="paper"), r"at least 32 px \(112 in the paper\), given 24"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_read(
    scheme: LandmarkScheme,
    settings: list[str],
    options: CascadeOptions,
    message: str,
    data: TrainingData,
    tmp_path: Path,
) -> None:
    faces, config = TrainingData(scheme, data.labelled, [], []), load_config("cascade", settings)
    with pytest.raises(InputError, match=message):
        train(config, faces, tmp_path / "run", cascade_options=options)
    with pytest.raises(InputError, match=message):
        check_cascade(config, scheme, options=options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stages", ["['component', 'coarse']", "['angle', 'point']", "['coarse', 'coarse']"])
def test_stages_in_an_impossible_order(stages: str) -> None:
    with pytest.raises(
        InputError, match=r"cascade.stages: expected coarse and any others of angle, coarse, .* given \["
    ):
        load_config("cascade", [f"cascade.stages={stages}"])


def test_the_scheme_file_is_named(cli: Any, synthetic: Path, tmp_path: Path) -> None:
    names = ", ".join(f'"p{i}"' for i in range(68))
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "mine"\nlandmarks = [{names}]\ndefault_normalizer = "box-size"\n', encoding="utf-8")
    words = ["train", synthetic, "--labelled", synthetic / "few.txt", "--scheme", file, "--recipe", "cascade"]
    assert "mine.toml: scheme mine has no components" in cli.error(*words, "--out", tmp_path / "run")


def test_the_papers_sizes(data: TrainingData, tmp_path: Path) -> None:
    """Section 3: about 500, 100 and 25 M multiply-adds."""
    settings = [*TINY, "crop.size=112", "cascade.stages=['coarse']", "cascade.length=0.0001"]
    faces = TrainingData(SCHEME, data.labelled[:2], [], [])
    options = CascadeOptions(size="paper", twin=False)
    result = train(load_config("cascade", settings), faces, tmp_path / "run", cascade_options=options)
    (stage,) = read_metadata(result.path)["cascade"]
    assert 400e6 < stage["n_multiply_adds"] < 600e6
