"""HeatmapCodec: what is encoded is decoded, to a tenth of a pixel where the decoding allows it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.models.codec import Decoding, HeatmapCodec, average_heatmaps

torch.set_num_threads(1)
SIZE = 64
STRIDES = (2, 4, 8)
fractions = st.floats(0, 1, exclude_max=True, width=32)


def round_trip(codec: HeatmapCodec, x: float, y: float, size: int = SIZE) -> float:
    """Distance between a landmark and its decoded ideal map, crop px."""
    heatmaps, _ = codec.encode(torch.tensor([[[x, y]]]), (size, size))
    landmarks, _ = codec.decode(heatmaps)
    return math.dist(landmarks[0, 0].tolist(), (x, y))


@settings(max_examples=60)
@given(stride=st.sampled_from(STRIDES), x=fractions, y=fractions, sigma=st.sampled_from([1.5, 3.0, 6.0]))
@example(stride=8, x=0.5, y=0.5, sigma=1.5)
def test_parabola_is_exact_at_every_offset(stride: int, x: float, y: float, sigma: float) -> None:
    # anywhere but in the outermost cells, at any sigma
    low, span = 1.5 * stride, SIZE - 3 * stride - 1
    assert round_trip(HeatmapCodec(stride, sigma, decoding="parabola"), low + x * span, low + y * span) < 0.01


@settings(max_examples=60)
@given(stride=st.sampled_from(STRIDES), x=fractions, y=fractions)
def test_centroid_where_sigma_fills_its_window(stride: int, x: float, y: float) -> None:
    # a window of 5 cells sees nearly the whole of a Gaussian of 0.6 to 0.75 cells
    codec = HeatmapCodec(stride, 0.65 * stride, decoding="centroid")
    assert round_trip(codec, 3 * stride + x * stride, 3 * stride + y * stride) < 0.1 * max(1, stride / 4)


@settings(max_examples=60)
@given(stride=st.sampled_from(STRIDES), x=fractions, y=fractions, logits=st.booleans())
def test_soft_argmax_away_from_the_border(stride: int, x: float, y: float, logits: bool) -> None:
    codec = HeatmapCodec(stride, max(3.0, 0.6 * stride), decoding="soft-argmax", logits=logits)
    reach = 4 * codec.sigma
    span = SIZE - 1 - 2 * reach
    assert round_trip(codec, reach + x * span, reach + y * span) < 0.1


@settings(max_examples=60)
@given(stride=st.sampled_from(STRIDES), x=fractions, y=fractions)
def test_argmax_and_quarter_err_by_their_floor(stride: int, x: float, y: float) -> None:
    point = (2 * stride + x * 20, 2 * stride + y * 20)
    argmax = HeatmapCodec(stride, 1.0 * stride, decoding="argmax")
    quarter = HeatmapCodec(stride, 1.0 * stride, decoding="quarter")
    heatmaps, _ = argmax.encode(torch.tensor([[point]]), (SIZE, SIZE))
    by_argmax = argmax.decode(heatmaps)[0][0, 0].tolist()
    by_quarter = quarter.decode(heatmaps)[0][0, 0].tolist()
    for axis in (0, 1):
        assert abs(by_argmax[axis] - point[axis]) <= stride / 2 + 1e-4
        assert abs(by_quarter[axis] - point[axis]) <= stride / 4 + 1e-4


def test_floor_of_argmax_is_the_published_one() -> None:
    """Mean error over all offsets in a cell: 0.3826 of a cell, 5.9 % of 26 px at stride 4."""
    codec = HeatmapCodec(4, 3.0, decoding="argmax")
    offsets = torch.arange(16) / 16 * 4 + 30 + 1 / 8
    grid = torch.stack(torch.meshgrid(offsets, offsets, indexing="xy"), -1).reshape(1, -1, 2)
    heatmaps, _ = codec.encode(grid, (SIZE, SIZE))
    errors = (codec.decode(heatmaps)[0] - grid).norm(dim=-1)
    assert float(errors.mean()) / 26 == pytest.approx(0.059, abs=0.0005)
    assert float(errors.max()) < 2 * math.sqrt(2)


def test_hand_computed_cells() -> None:
    codec = HeatmapCodec(stride=4, sigma=2.0)
    assert codec.cell_centres(3).tolist() == [1.5, 5.5, 9.5]
    heatmaps, weights = codec.encode(torch.tensor([[[5.5, 1.5]]]), (8, 16))
    assert heatmaps.shape == (1, 1, 2, 4)
    assert weights.shape == (1, 1, 1, 1)
    assert heatmaps[0, 0, 0, 1] == 1
    assert float(heatmaps[0, 0, 0, 2]) == pytest.approx(math.exp(-16 / 8))
    assert float(heatmaps[0, 0, 1, 0]) == pytest.approx(math.exp(-32 / 8))
    landmarks, scores = codec.decode(heatmaps)
    assert landmarks[0, 0, 0] == pytest.approx(5.5, abs=1e-4)
    assert float(scores[0, 0]) == 1


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("missing", [(math.nan, math.nan), (math.nan, 5.0)])
def test_missing_landmark_has_weight_0_and_an_empty_map(logits: bool, missing: tuple[float, float]) -> None:
    codec = HeatmapCodec(logits=logits)
    heatmaps, weights = codec.encode(torch.tensor([[missing, (20.0, 30.0)]]), (SIZE, SIZE))
    assert weights.flatten().tolist() == [0, 1]
    assert bool((heatmaps[0, 0] == 0).all())
    assert torch.isfinite(codec.decode(heatmaps)[0]).all()


@given(st.lists(st.tuples(st.floats(-20, 80), st.floats(-20, 80)), min_size=1, max_size=4))
@settings(max_examples=30)
def test_background_is_what_the_landmarks_leave(points: list[tuple[float, float]]) -> None:
    codec = HeatmapCodec(background=True)
    heatmaps, weights = codec.encode(torch.tensor([points]), (SIZE, SIZE))
    assert heatmaps.shape[1] == codec.n_maps(len(points)) == len(points) + 1
    assert torch.equal(heatmaps[:, -1], 1 - heatmaps[:, :-1].amax(1))
    assert float(weights[0, -1]) == 1
    assert codec.decode(heatmaps)[0].shape == (1, len(points), 2)


def test_background_of_a_face_without_landmarks_is_everywhere() -> None:
    heatmaps, weights = HeatmapCodec(background=True).encode(torch.full((1, 2, 2), math.nan), (SIZE, SIZE))
    assert bool((heatmaps[0, 2] == 1).all())
    assert weights.flatten().tolist() == [0, 0, 1]


@given(st.floats(-30, 90, width=32), st.floats(-30, 90, width=32))
@settings(max_examples=40)
def test_maps_of_logits_sum_to_one(x: float, y: float) -> None:
    codec = HeatmapCodec(sigma=8.0, logits=True)
    ideal, _ = codec.encode(torch.tensor([[[x, y]]]), (SIZE, SIZE))
    written = codec.normalise(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 9)
    assert float(ideal.sum()) == pytest.approx(1, abs=1e-4)
    assert written.sum((-2, -1)).flatten().tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_heights_of_a_distribution_are_those_of_an_ideal_map() -> None:
    point = torch.tensor([[[29.5, 33.5]]])
    for stride in STRIDES:
        sigma = max(3.0, 0.8 * stride)
        peak_normalised, _ = HeatmapCodec(stride, sigma).encode(point, (SIZE, SIZE))
        codec = HeatmapCodec(stride, sigma, logits=True)
        again = codec.peak_normalised(codec.encode(point, (SIZE, SIZE))[0])
        assert torch.allclose(again, peak_normalised, atol=0.02)
    assert torch.equal(HeatmapCodec().peak_normalised(peak_normalised), peak_normalised)


@pytest.mark.parametrize("decoding", ["argmax", "quarter", "centroid", "parabola", "soft-argmax"])
@pytest.mark.parametrize("logits", [False, True])
@given(x=st.floats(4, 59, width=32), y=st.floats(4, 59, width=32), stride=st.sampled_from(STRIDES))
@settings(max_examples=25)
def test_mirrored_maps_decode_to_mirrored_points(
    decoding: Decoding, logits: bool, x: float, y: float, stride: int
) -> None:
    codec = HeatmapCodec(stride, 3.1, decoding=decoding, logits=logits)
    ties = min(abs((v - (stride - 1) / 2) / stride % 1 - 0.5) for v in (x, y))
    heatmaps, _ = codec.encode(torch.tensor([[[x, y]]]), (SIZE, SIZE))
    there, scores = codec.decode(heatmaps)
    back, scores_back = codec.decode(heatmaps.flip(-1))
    if ties > 1e-3 or decoding == "soft-argmax":  # between two equal cells argmax takes the first
        assert float(back[0, 0, 0]) == pytest.approx(SIZE - 1 - float(there[0, 0, 0]), abs=1e-2)
        assert float(back[0, 0, 1]) == pytest.approx(float(there[0, 0, 1]), abs=1e-2)
    assert float(scores) == pytest.approx(float(scores_back), rel=1e-3)


@given(x=fractions, y=fractions, logits=st.booleans())
@settings(max_examples=60)
def test_average_of_unlike_strides_keeps_the_point(x: float, y: float, logits: bool) -> None:
    point = torch.tensor([[[24 + 16 * x, 24 + 16 * y]]])
    fine, coarse = HeatmapCodec(4, 5.0, logits=logits), HeatmapCodec(8, 5.0, logits=logits)
    average = average_heatmaps([c.encode(point, (SIZE, SIZE))[0] for c in (coarse, fine)])
    assert average.shape == (1, 1, 16, 16)
    if logits:
        assert float(average.sum()) == pytest.approx(1, abs=1e-3)
    codec = HeatmapCodec(4, 5.0, decoding="soft-argmax" if logits else "parabola", logits=logits)
    cells = (codec.decode(average)[0] - point).norm() / codec.stride
    assert float(cells) < (0.05 if logits else 0.2)


def test_average_of_equal_strides_is_the_plain_mean() -> None:
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    assert torch.allclose(average_heatmaps([a, b]), (a + b) / 2)
    assert torch.equal(average_heatmaps([a]), a)


def test_score_is_the_height_or_how_narrow_a_distribution_is() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 4, 4], maps[0, 0, 4, 5], maps[0, 0, 0, 0] = 0.5, 0.25, 0.25
    assert float(HeatmapCodec(logits=False).decode(maps)[1]) == 0.5
    # in cells: x has the mean 3.25 and the variance 3.6875, y 3 and 3
    expected = math.erf(1.5 / math.sqrt(2 * 3.6875)) * math.erf(1.5 / math.sqrt(2 * 3))
    assert float(HeatmapCodec(logits=True).decode(maps)[1]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cells", [1.0, 1.5, 3.0])
def test_score_of_a_gaussian_is_the_mass_in_3_x_3_cells_round_it(cells: float) -> None:
    codec = HeatmapCodec(stride=4, sigma=4 * cells, logits=True, decoding="soft-argmax")
    middle = codec.cell_centres(33)[16]
    maps, _ = codec.encode(torch.full((1, 1, 2), float(middle)), (132, 132))
    found = float(codec.decode(maps)[1])
    assert found == pytest.approx(float(maps[0, 0, 15:18, 15:18].sum()), abs=0.04)
    assert found == pytest.approx(math.erf(1.5 / cells / math.sqrt(2)) ** 2, abs=2e-3)


def test_two_far_peaks_score_below_one_and_one_cell_at_most_one() -> None:
    codec = HeatmapCodec(logits=True, decoding="soft-argmax")
    one, two = torch.zeros(2, 1, 1, 16, 16)
    one[0, 0, 3, 3] = 1
    two[0, 0, 3, 3], two[0, 0, 12, 12] = 0.5, 0.5
    assert 0.99 < float(codec.decode(one)[1]) <= 1
    assert float(codec.decode(two)[1]) < 0.2


def test_maps_that_no_landmark_explains_decode_to_finite_points() -> None:
    odd = torch.stack([torch.zeros(8, 8), torch.full((8, 8), -3.0), torch.full((8, 8), 0.7), torch.eye(8) * 1e-45])
    for decoding in ("argmax", "quarter", "centroid", "parabola", "soft-argmax"):
        landmarks, scores = HeatmapCodec(decoding=decoding).decode(odd[None])
        assert torch.isfinite(landmarks).all(), decoding
        assert torch.isfinite(scores).all(), decoding


def test_soft_argmax_carries_a_gradient() -> None:
    codec = HeatmapCodec(logits=True, decoding="soft-argmax")
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    codec.expectation(codec.normalise(logits))[..., 0].sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 0, 0] < 0 < logits.grad[0, 0, 0, -1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride": 0},
        {"sigma": 0.0},
        {"sigma": math.nan},
        {"decoding": "centre"},
        {"logits": True, "background": True},
    ],
)
def test_bad_codecs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="HeatmapCodec") as caught:
        HeatmapCodec(**wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
