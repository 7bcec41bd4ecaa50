"""Training the stages: labels that move with the image, twins, shares, files to go on from, and errors that fall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Similarity, box_of_points, wrap_angle
from fewmark.data.augment import AugmentRule
from fewmark.data.batches import Batches
from fewmark.data.crops import CropRule, cut
from fewmark.data.formats.io import read_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.cascade.component import component_crop_from_image
from fewmark.inference.cascade.frames import component_from_mean, face_angle, scheme_mean_face
from fewmark.inference.cascade.point import PatchLayout
from fewmark.inference.cascade.state import FaceState
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.models.coarse import Coarse
from fewmark.training.cascade.angle import angle_rows, train_angle
from fewmark.training.cascade.coarse import Twin, coarse_rows, train_coarse, twin_loss
from fewmark.training.cascade.component import component_rows, train_component
from fewmark.training.cascade.faces import TrainingFaces, cache_training_faces, predict_landmarks
from fewmark.training.cascade.fit_stage import Schedule, SyntheticFaces
from fewmark.training.cascade.point import point_loss, point_rows, train_point
from fewmark.training.events import Event
from fewmark.training.runner import RunContext

torch.set_num_threads(1)
SCHEME = load_scheme("ibug-68")
MEAN = scheme_mean_face(SCHEME)
STILL = AugmentRule(scale=0, rotation=0, shift=0, flip=0, colour=0, erase=0, blur=0)
MOVING = AugmentRule(scale=0.2, rotation=30, shift=0.1, flip=0.5, colour=0, erase=0, blur=0)
SMALL_COARSE = {"widths": (8, 16, 24), "n_modules": (1, 1), "head": "coordinates", "grid": 4}
SMALL_COMPONENT = {"widths": (8, 16), "n_convs": (1, 1), "first_stride": 2, "grid": 4}
SMALL_POINT = {"widths": (4,), "n_convs": (1,), "grid": 2}


@pytest.fixture(scope="module")
def few(synthetic: Path) -> TrainingFaces:
    """Six synthetic faces."""
    return cache_training_faces(read_faces(synthetic, scheme=SCHEME)[:6], SCHEME)


def dotted(landmark: int) -> TrainingFaces:
    """One face that is nothing but a white dot where a landmark is."""
    points = Similarity.about(np.zeros(2), np.array([120.0, 110.0]), scale=110, angle=20)(MEAN).astype(np.float32)
    y, x = np.mgrid[:330, :330]
    spot = 255 * np.exp(-((x - points[landmark, 0]) ** 2 + (y - points[landmark, 1]) ** 2) / (2 * 2.5**2))
    image = np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)
    face = FaceState(box_of_points(points), face_angle(points, MEAN), points)
    return TrainingFaces(SCHEME, MEAN, (image,), (face,))


def dot_in(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where the dot is, px: the middle of the light."""
    weights = np.clip(image[..., 0].astype(np.float64) - 130, 0, None)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


def test_cached_faces_are_the_images_faces(synthetic: Path, few: TrainingFaces) -> None:
    samples = read_faces(synthetic, scheme=SCHEME)[:6]
    assert len(few) == 6
    assert few.landmarks.shape == (6, 68, 2)
    for sample, face in zip(samples, few.faces, strict=True):
        assert sample.landmarks is not None
        assert face.landmarks is not None
        assert abs(wrap_angle(face.angle - face_angle(sample.landmarks, few.mean_face))) < 1e-3
        scale = np.ptp(face.landmarks[:, 0]) / np.ptp(sample.landmarks[:, 0])
        shift = face.landmarks - sample.landmarks * scale
        assert np.ptp(shift, axis=0).max() < 1e-2
        box = (sample.face_box() * scale).reshape(2, 2) + shift[0]
        np.testing.assert_allclose(face.box_xyxy.reshape(2, 2), box, atol=1e-2)
    assert all(f.landmarks is None and f.angle == 0 for f in few.starts())


@pytest.mark.parametrize("seed", range(12))
def test_labels_move_exactly_as_the_image(seed: int) -> None:
    """Turned, flipped, scaled, shifted: the light in a crop is where the label says, in every stage's training crops."""
    landmark = 39  # the left eye's inner corner; in a flipped image it is the right one's, 42
    faces = dotted(landmark)
    for rule in (replace(MOVING, flip=0.0), replace(MOVING, flip=1.0)):
        expected = 42 if rule.flip else landmark
        name = "right_eye" if rule.flip else "left_eye"
        rng = np.random.default_rng(seed)
        row = coarse_rows(faces, range(68), CropRule(192, 0.3), rule, 0.5)(0, rng)
        np.testing.assert_allclose(dot_in(row.image), row.targets[expected], atol=0.3)

        indices = SCHEME.components[name]
        mild = replace(rule, shift=0.05)
        rows = component_rows(faces, MEAN, indices, 48, 0.3, mild, None, 0.0, augment_coarse=True)
        row = rows(0, rng)
        places = component_from_mean(MEAN, indices, 48, 0.3)(MEAN[list(indices)])
        at = indices.index(expected)
        np.testing.assert_allclose(dot_in(row.image), places[at] + row.targets[at], atol=0.3)

        layout = PatchLayout.of_scheme(SCHEME, MEAN, (3, 5, 7), 48, 2.0)
        calm = replace(rule, shift=0.01, scale=0.05, rotation=5)
        row = point_rows(faces, layout, calm, 0.01)(0, rng)
        at = layout.points.index(expected)
        first = 0
        for s, (table, places) in enumerate(zip(layout.neighbours, layout.places, strict=True)):
            np.testing.assert_allclose(dot_in(row.image[s, at]), places[at, 0] + row.targets[at, first], atol=0.3)
            first += table.shape[1]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_target_angle_is_the_crops_angle(flip: float) -> None:
    """Two dots, the nose's root and the chin: the line between them stands as the label says."""
    root, chin = dotted(27), dotted(8)
    both = replace(root, images=(np.maximum(root.images[0], chin.images[0]),))
    rule = replace(MOVING, flip=flip, shift=0.02, scale=0.05)
    for seed in range(10):
        crops = [angle_rows(f, CropRule(96, 0.4), rule)(0, np.random.default_rng(seed)) for f in (root, chin, both)]
        a, b = dot_in(crops[0].image), dot_in(crops[1].image)
        down = MEAN[8] - MEAN[27]
        found = np.degrees(np.arctan2(*(a - b)[[1, 0]] * [-1, 1]) - np.arctan2(*(-down)[[1, 0]] * [-1, 1]))
        target = np.degrees(np.arctan2(crops[2].targets[1], crops[2].targets[0]))
        assert abs((found - target + 180) % 360 - 180) < 1.5


def test_rows_are_a_function_of_seed_and_epoch(few: TrainingFaces) -> None:
    rows = coarse_rows(few, range(68), CropRule(32, 0.1), AugmentRule(), 0.5)

    def epoch(seed: int, index: int, **changes: Any) -> list[Any]:
        return list(Batches(6, rows, 4, seed, **changes)(index))

    first = epoch(0, 1)
    assert [b.images.shape for b in first] == [(4, 32, 32, 3)] * 2
    for other, same in ((epoch(0, 1, n_threads=0), True), (epoch(0, 2), False), (epoch(1, 1), False)):
        assert all(np.array_equal(a.images, b.images) for a, b in zip(first, other, strict=True)) == same
    parts = [epoch(0, 1, rank=r, world_size=2) for r in range(2)]
    for i, batch in enumerate(first):
        np.testing.assert_array_equal(np.concatenate([p[i].targets for p in parts]), batch.targets)
    with pytest.raises(InputError, match="a multiple of the 3 processes, given 4"):
        Batches(6, rows, 4, 0, world_size=3)


def twins(head: str) -> list[Coarse]:
    torch.manual_seed(0)
    return [Coarse(4, widths=(8, 8, 8), n_modules=(1, 1), grid=2, head=head) for _ in range(2)]


@pytest.mark.parametrize("head", ["coordinates", "heatmaps"])
def test_loss_three_stops_before_the_teacher(head: str) -> None:
    """The teacher's gradient is that of its own loss; the student's is not."""
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    landmarks = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(2)) * 32
    gradients = {}
    for weight in (0.0, 1.0):
        networks = twins(head)
        answers = Twin(networks)(images)
        twin_loss(answers, landmarks, networks[1], 32, kind="l2", twin_weight=weight).backward()
        gradients[weight] = [[p.grad.clone() for p in n.parameters() if p.grad is not None] for n in networks]
    teacher, student = (list(zip(gradients[0.0][i], gradients[1.0][i], strict=True)) for i in range(2))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in teacher)
    assert not all(torch.allclose(a, b, atol=1e-4) for a, b in student)


def test_twin_loss_by_hand() -> None:
    """Squares of 2 and 1 px to the truth, of 3 px between the twins, which stand on its two sides."""
    networks = twins("coordinates")
    truth = torch.zeros(1, 4, 2)
    teacher, student = truth.clone(), truth.clone()
    teacher[..., 0], student[..., 0] = 2, -1
    answers = [(teacher, teacher), (student, student)]
    assert float(twin_loss(answers, truth, networks[0], 32, kind="l2", twin_weight=0.5)) == pytest.approx(4 + 1 + 4.5)
    assert float(twin_loss(answers[:1], truth, networks[0], 32, kind="l2", twin_weight=0.5)) == pytest.approx(4)


def test_point_loss_by_hand() -> None:
    """One point, two scales whose patches are 1 and 3 wide: errors of 1 px and 1 px are 0.5 and 1.5 px of the mean one."""
    offsets = [torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0], [5.0, 0.0]]]])]
    target = torch.tensor([[[[0.0, 0.0], [0.0, 0.0], [5.0, 0.0]]]])
    gates = torch.tensor([[[0.5, 0.5]]])
    sides = torch.tensor([[1.0], [3.0]])
    # scales: 1 and (1 + 0) / 2, halved; the gated error 0.25 + 0.75
    assert float(point_loss(offsets, gates, target, sides, "l2")) == pytest.approx((1 + 0.5) / 2 + 1)
    target[0, 0, :2] = torch.nan
    assert float(point_loss(offsets, gates, target, sides, "l2")) == pytest.approx(0)


def test_the_student_is_kept_and_the_twins_begin_differently(few: TrainingFaces) -> None:
    one = Schedule(n_epochs=1, batch_size=6, learning_rate=1e-9, weight_decay=0)
    pair = train_coarse(few, arguments=SMALL_COARSE, size=32, schedule=one)
    single = train_coarse(few, arguments=SMALL_COARSE, size=32, schedule=one, twin=False)
    weights = [s.parts[0].network.module.levels[0][0].reduce.weight for s in (pair, single)]  # type: ignore[index, union-attr]
    assert not torch.allclose(weights[0], weights[1])
    assert sum(p.numel() for p in pair.modules["coarse0"].parameters()) == sum(
        p.numel() for p in single.modules["coarse0"].parameters()
    )


def mean_error(found: list[FaceState], faces: TrainingFaces, indices: slice | list[int]) -> float:
    """Px of the windows, whose faces are some 40 px wide."""
    points = np.stack([f.landmarks for f in found if f.landmarks is not None])
    return float(np.linalg.norm(points - faces.landmarks, axis=2)[:, indices].mean())


def shaken(faces: TrainingFaces, shift: float) -> list[FaceState]:
    """States whose landmarks are all off to the right."""
    return [replace(f, landmarks=f.landmarks + np.float32([shift, 0])) for f in faces.faces if f.landmarks is not None]


LONG = Schedule(n_epochs=60, batch_size=6, learning_rate=5e-3)
SHORT = replace(LONG, n_epochs=1, learning_rate=1e-6)


def test_the_angle_stage_learns_a_handful_of_faces(few: TrainingFaces) -> None:
    """Degrees, from crops that are turned by 40."""
    starts = [replace(f, angle=f.angle + 40) for f in few.faces]
    errors = []
    for schedule in (SHORT, replace(LONG, n_epochs=150, batch_size=24)):
        stage = train_angle(few, arguments={"widths": (8, 16, 16)}, size=24, augment=STILL, schedule=schedule)
        found = stage(few.images, starts)
        errors.append(np.mean([abs(wrap_angle(f.angle - t.angle)) for f, t in zip(found, few.faces, strict=True)]))
    assert errors[1] < min(30, 0.6 * errors[0])


def test_the_coarse_stage_learns_a_handful_of_faces(few: TrainingFaces) -> None:
    errors = []
    for schedule in (SHORT, LONG):
        stage = train_coarse(few, arguments=SMALL_COARSE, size=32, augment=STILL, roll_share=0, schedule=schedule)
        errors.append(mean_error(stage(few.images, list(few.faces)), few, slice(None)))
    assert errors[1] < 0.6 * errors[0]
    assert predict_landmarks([stage], few.images, few.faces).shape == (6, 68, 2)


def test_the_component_stage_learns_a_handful_of_faces(few: TrainingFaces) -> None:
    """From points that are all 3 px off."""
    moved = replace(STILL, shift=0.1)
    mouth = list(SCHEME.components["mouth"])
    errors = []
    for schedule in (SHORT, replace(LONG, n_epochs=100)):
        stage = train_component(
            few, components=["mouth"], arguments=SMALL_COMPONENT, size=32, augment=moved, schedule=schedule
        )
        errors.append(mean_error(stage(few.images, shaken(few, 3.0)), few, mouth))
    assert errors[1] < 0.6 * errors[0]
    assert list(stage.networks) == ["mouth"]


def test_the_point_stage_learns_a_handful_of_faces(few: TrainingFaces) -> None:
    """From points that are all 1.5 px off."""
    errors = []
    for schedule in (SHORT, replace(LONG, n_epochs=140, learning_rate=1e-2)):
        stage = train_point(
            few, arguments=SMALL_POINT, size=10, margin=1.0, noise=0.04, augment=STILL, schedule=schedule
        )
        errors.append(mean_error(stage(few.images, shaken(few, 1.5)), few, list(range(17, 68))))
    assert errors[1] < 0.8 * errors[0]


def test_share_of_real_output(few: TrainingFaces) -> None:
    """Share 1 without augmentation: the crop is the one that the stage will cut by those points, to the pixel."""
    indices = SCHEME.components["mouth"]
    real = few.landmarks + np.float32([2, -1])
    predicted = replace(few.faces[0], landmarks=real[0])
    crop_from_image = component_crop_from_image(predicted, 0, few.mean_face, indices, 32, 0.3)
    rows = component_rows(few, few.mean_face, indices, 32, 0.3, AugmentRule(), real, 1.0, augment_coarse=False)
    row = rows(0, np.random.default_rng(0))
    image, target = row.image, row.targets
    np.testing.assert_array_equal(image, cut(few.images[0], crop_from_image, 32))
    places = component_from_mean(few.mean_face, indices, 32, 0.3)(few.mean_face[list(indices)])
    np.testing.assert_allclose(places + target, crop_from_image(few.landmarks[0][list(indices)]), atol=1e-3)
    augmented = component_rows(few, few.mean_face, indices, 32, 0.3, AugmentRule(), real, 1.0, augment_coarse=True)
    assert not np.array_equal(augmented(0, np.random.default_rng(0)).image, image)
    quarter = component_rows(few, few.mean_face, indices, 32, 0.3, STILL, real, 0.25, augment_coarse=True)
    cuts = [quarter(0, np.random.default_rng(i)).image for i in range(200)]
    n = sum(float(np.abs(c.astype(int) - image).mean()) < 0.1 for c in cuts)
    assert 30 < n < 72


def test_a_component_is_trained_again_alone(few: TrainingFaces) -> None:
    one = Schedule(n_epochs=1, batch_size=6)
    small = {"arguments": SMALL_COMPONENT, "schedule": one}
    first = train_component(few, components=["mouth", "nose"], size=24, **small)  # type: ignore[arg-type]
    again = train_component(few, components=["mouth"], start=first, context=RunContext(seed=1), **small)  # type: ignore[arg-type]
    assert again.networks["nose"] is first.networks["nose"]
    assert again.networks["mouth"] is not first.networks["mouth"]
    assert (again.size, again.margin) == (24, first.margin)


def test_a_training_that_has_ended_is_not_repeated(few: TrainingFaces, tmp_path: Path) -> None:
    epochs: list[str] = []
    context = RunContext(folder=tmp_path, emit=lambda e: epochs.append(e["name"]) if e["kind"] == "epoch" else None)
    one = Schedule(n_epochs=2, batch_size=6)
    first = train_angle(few, arguments={"widths": (8,)}, size=16, schedule=one, context=context)
    assert epochs == ["angle", "angle"]
    again = train_angle(few, arguments={"widths": (8,)}, size=16, schedule=one, context=context)
    assert epochs == ["angle", "angle"]
    states = [s.modules["angle"].state_dict() for s in (first, again)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    with pytest.raises(InputError, match=r"angle\.safetensors: the weights of another network"):
        train_angle(few, arguments={"widths": (16,)}, size=16, schedule=one, context=context)


def test_a_training_begins_on_synthetic_faces(few: TrainingFaces, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}

    def emit(event: Event) -> None:
        if event["kind"] == "epoch":
            losses.setdefault(event["name"], []).append(event["loss"])

    schedule = Schedule(n_epochs=12, batch_size=6)

    def train(folder: Path | None, synthetic: SyntheticFaces | None = None) -> None:
        train_component(
            few,
            components=["nose"],
            arguments=SMALL_COMPONENT,
            size=32,
            augment=STILL,
            schedule=schedule,
            context=RunContext(folder=folder, emit=emit),
            synthetic=synthetic,
        )

    train(None)
    without = losses.pop("component_nose")
    train(tmp_path, SyntheticFaces(few, 0.5))  # the same faces: what was learned on them shows
    assert len(losses["synthetic_component_nose"]) == 6
    assert losses["component_nose"][0] < 0.8 * without[0]
    assert {p.name for p in tmp_path.iterdir()} == {
        "synthetic_component_nose.safetensors",
        "component_nose.safetensors",
    }
    (tmp_path / "synthetic_component_nose.safetensors").unlink()
    losses.clear()
    train(tmp_path, SyntheticFaces(few))
    assert not losses  # the one that follows has ended: nothing is trained


def test_bad_input_is_named(few: TrainingFaces) -> None:
    for wrong, message in [
        ({"landmarks": [70]}, r"expected some of 0\.\.67, given \[70\]"),
        (
            {"size": 40, "arguments": {"widths": (8, 8, 8, 8), "n_modules": (1, 1, 1), "head": "heatmaps"}},
            "multiple of 16",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            train_coarse(few, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no component 'ear'"):
        train_component(few, components=["ear"])
    with pytest.raises(InputError, match="coarse_share: expected 0 to 1, above 0 with coarse_landmarks"):
        train_component(few, coarse_share=0.5)
    with pytest.raises(InputError, match="noise: expected a number from 0, given -1"):
        train_point(few, noise=-1)
    with pytest.raises(InputError, match="n_epochs and batch_size of at least 1"):
        Schedule(n_epochs=0)
    with pytest.raises(InputError, match="the labelled list is empty"):
        cache_training_faces([], SCHEME)
    with pytest.raises(InputError, match="scheme bare has no mean face"):
        cache_training_faces([FaceSample(Path("a.png"))], LandmarkScheme("bare", ("a", "b")))
    with pytest.raises(InputError, match=r"a\.png: the face has no landmarks"):
        cache_training_faces([FaceSample(Path("a.png"))], SCHEME)
