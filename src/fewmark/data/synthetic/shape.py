"""The shape of a synthetic face: 68 parametric landmarks from the front, and how another scheme's follow them.

The face frame: x to the image's right, y down, z towards the viewer; the origin lies between the eyes and
the unit is a little less than half the width of the face at the ears.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme

# The mean face: images drawn of it in random poses have the mean landmarks of 921 labelled 300-W faces. The image's left half.
_LEFT = {
    0: (-1.077, -0.003), 1: (-1.063, 0.269), 2: (-1.029, 0.536), 3: (-0.973, 0.794), 4: (-0.867, 1.029),
    5: (-0.693, 1.22), 6: (-0.475, 1.365), 7: (-0.245, 1.474), 8: (0.0, 1.497), 17: (-0.855, -0.171),
    18: (-0.722, -0.282), 19: (-0.536, -0.316), 20: (-0.345, -0.291), 21: (-0.168, -0.228), 27: (0.0, -0.037),
    28: (0.0, 0.13), 29: (0.0, 0.292), 30: (0.0, 0.459), 31: (-0.203, 0.586), 32: (-0.105, 0.617),
    33: (0.0, 0.645), 36: (-0.632, -0.014), 37: (-0.518, -0.084), 38: (-0.383, -0.081), 39: (-0.266, 0.014),
    40: (-0.391, 0.035), 41: (-0.526, 0.032), 48: (-0.4, 0.884), 49: (-0.249, 0.845), 50: (-0.099, 0.806),
    51: (0.0, 0.829), 57: (0.0, 1.09), 58: (-0.108, 1.082), 59: (-0.253, 1.034), 60: (-0.338, 0.88),
    61: (-0.1, 0.858), 62: (0.0, 0.823), 66: (0.0, 0.908), 67: (-0.103, 0.94),
}  # fmt: skip
# How far what is painted lies from where people label it, face units: noses are labelled low, brows high and towards the nose,
# eyes towards the nose, contours inside the edge. Measured as what a network that had seen drawn faces alone got wrong on average on validation faces.
_PAINTED = {
    1: (0.0, 0.009), 2: (0.0, 0.009), 3: (-0.004, 0.014), 4: (-0.004, 0.017), 5: (0.0, 0.017), 6: (0.0, 0.009),
    7: (0.0, 0.008), 8: (0.0, 0.007), 17: (-0.004, 0.008), 18: (-0.011, 0.03), 19: (-0.032, 0.049),
    20: (-0.041, 0.043), 21: (-0.027, 0.01), 27: (0.0, -0.009), 28: (0.0, -0.048), 29: (0.0, -0.056),
    30: (0.0, -0.042), 31: (-0.001, -0.047), 32: (0.003, -0.039), 33: (0.0, -0.034), 36: (-0.045, 0.014),
    37: (-0.032, 0.017), 38: (-0.033, 0.011), 39: (-0.026, -0.008), 40: (-0.029, -0.007), 41: (-0.024, 0.001),
    48: (-0.025, 0.0), 49: (-0.018, 0.002), 50: (-0.012, -0.004), 51: (0.0, -0.004), 57: (0.0, 0.032),
    58: (-0.013, 0.028), 59: (-0.02, 0.013), 60: (-0.019, 0.0), 61: (-0.005, -0.006), 62: (0.0, -0.006),
    67: (-0.006, 0.0),
}  # fmt: skip
IBUG_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47,
    46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60,
    67, 66, 65,
)  # fmt: skip
# The hairline from the image's left temple to the right one; row 68 + i of the controls.
_HAIRLINE = (
    *((-1.065, -0.34), (-0.97, -0.7), (-0.66, -1.0)),
    *((0.0, -1.16), (0.66, -1.0), (0.97, -0.7), (1.065, -0.34)),
)
_JAW_WEIGHT = np.array([0, 0.15, 0.4, 0.75, 1, 1, 0.8, 0.4, 0, 0.4, 0.8, 1, 1, 0.75, 0.4, 0.15, 0])
_CHIN_WEIGHT = np.array([0, 0, 0.05, 0.15, 0.35, 0.6, 0.8, 0.95, 1, 0.95, 0.8, 0.6, 0.35, 0.15, 0.05, 0, 0])
_UPPER_LIP, _LOWER_LIP = list(range(49, 54)), list(range(55, 60))
_LIP_WEIGHT = np.array([0.66, 0.95, 1.0, 0.95, 0.66])
_EYES = (slice(36, 42), slice(42, 48))
_BROWS = (slice(17, 22), slice(22, 27))
_GROUPS = {"left_eye": slice(36, 42), "right_eye": slice(42, 48), "mouth": slice(48, 60)}
CENTRE = np.array([0.0, 0.25])
"""CropPrediction from here the face's outline is star-shaped; face frame."""


def mean_controls() -> Floats:
    """(75, 2) face frame: the mean face's ibug-68 landmarks, then 7 points of the hairline."""
    points = np.zeros((68, 2))
    for i, (x, y) in _LEFT.items():
        points[i] = x, y
        points[IBUG_MIRROR[i]] = -x, y
    return np.concatenate([points, np.array(_HAIRLINE)])


def painted_controls(controls: FloatArray) -> Floats:
    """Where the features of a face are painted, (75, 2) face frame, for its landmarks and hairline, the same."""
    painted = np.array(controls, np.float64)
    for i, (x, y) in _PAINTED.items():
        painted[i] += x, y
        if IBUG_MIRROR[i] != i:
            painted[IBUG_MIRROR[i]] += -x, y
    return painted


@dataclass(frozen=True)
class Expression:
    """What the face does.

    Attributes:
        gap: how far the inner lips are apart, face units; 0 = closed, 0.6 = wide open.
        smile: -1 (corners down) to 1.
        brow_raise: upward, face units.
        eyes: (2,) factors on the eye opening, the image's left first; 0 = shut.
        pucker: 0 to 1, how far the mouth is narrowed.
        press: 0 to 1, how far the lips are drawn in.
    """

    gap: float = 0.03
    smile: float = 0.0
    brow_raise: float = 0.0
    eyes: tuple[float, float] = (1.0, 1.0)
    pucker: float = 0.0
    press: float = 0.0


def sample_expression(rng: np.random.Generator) -> Expression:
    """A random expression: mostly calm or smiling, sometimes talking, shouting, blinking, surprised."""
    u = rng.random(6)
    smile = float(rng.uniform(0.3, 1.1)) if u[0] < 0.45 else float(rng.normal(-0.05, 0.3))
    if smile > 0.5 and u[1] < 0.6:
        gap = float(rng.uniform(0.04, 0.17))
    elif u[1] < 0.55:
        gap = float(rng.uniform(0, 0.02))
    else:
        gap = float(rng.uniform(0.02, 0.15)) if u[1] < 0.9 else float(rng.uniform(0.15, 0.6))
    brow = float(rng.normal(0, 0.03)) + (0.09 if u[2] < 0.12 else 0.0) + 0.08 * gap
    opening = float(np.clip(rng.normal(1.0, 0.2), 0.45, 1.5)) * (1 - 0.22 * max(smile, 0)) * (1 + 2.0 * max(brow, 0))
    eyes = (0.04, 0.04) if u[3] < 0.06 else ((opening, 0.05) if u[3] < 0.075 else (opening, opening))
    if 0.075 <= u[3] < 0.09:
        eyes = (0.05, opening)
    pucker = float(rng.uniform(0.2, 1.0)) if u[4] < 0.07 else 0.0
    press = float(rng.uniform(0.2, 1.0)) if gap < 0.03 and u[5] < 0.25 else 0.0
    return Expression(gap, smile, brow, eyes, pucker, press)


def face_controls(rng: np.random.Generator | None, expression: Expression) -> Floats:
    """The landmarks and hairline of one face seen from the front.

    Args:
        rng: Source of the shape of the person; None for the mean person, which is mirror-symmetric.
        expression: Facial expression.

    Returns:
        (75, 2) face frame: 68 landmarks, 7 points of the hairline.
    """
    p = mean_controls()
    g = np.zeros(26) if rng is None else np.clip(rng.standard_normal(26), -2.3, 2.3)
    child = 0.0 if rng is None else float(rng.uniform(0.3, 1.0) * (rng.random() < 0.15))
    face, hair = p[:68], p[68:]
    thick = 1 - 0.65 * expression.press
    _open_mouth(face, expression, upper=thick * (1 + 0.28 * g[0]), lower=thick * (1 + 0.25 * g[1]))
    face[48:68, 0] *= (
        (1 - 0.12 * child) * (1 + 0.1 * g[2]) * (1 + 0.16 * expression.smile) * (1 - 0.28 * expression.pucker)
    )
    face[48:68, 1] += 0.03 * g[3]
    for side, (eye, brow) in enumerate(zip(_EYES, _BROWS, strict=True)):
        sign = -1.0 if side == 0 else 1.0
        _shape_eye(
            face[eye],
            sign,
            expression.eyes[side],
            size=1 + 0.11 * g[4] + 0.14 * child,
            slant=0.06 * g[5],
            apart=0.018 * g[6],
        )
        centre = face[brow].mean(0)
        out = (face[brow, 0] - centre[0]) * sign
        face[brow, 1] += -expression.brow_raise + 0.045 * g[7] - 0.12 * g[8] * out + 0.1 * g[9] * (out**2 - 0.05)
        face[brow, 0] += sign * (0.035 * g[10] + 0.06 * g[11] * out)
    face[27:36, 1] = face[27, 1] + (face[27:36, 1] - face[27, 1]) * (1 + 0.09 * g[12]) * (1 - 0.12 * child)
    face[31:36, 0] *= (1 - 0.1 * child) * (1 + 0.13 * g[13]) * (1 + 0.1 * max(expression.smile, 0))
    face[30, 1] += 0.03 * g[14]
    jaw = face[:17]
    jaw[:, 0] *= 1 + _JAW_WEIGHT * (0.07 * g[15] + 0.02 * max(expression.smile, 0))
    jaw[:, 1] += _CHIN_WEIGHT * (0.07 * g[16] + 0.62 * expression.gap)
    jaw[6:11, 0] *= 1 + 0.12 * g[17]
    hair[:, 1] *= 1 + 0.09 * g[18]
    below = p[:, 1] > 0
    p[below, 1] *= (1 + 0.055 * g[19]) * (1 - 0.09 * child)
    if rng is not None:  # real faces are not symmetric, and their labels not smooth
        p += rng.normal(0, 0.007, p.shape)
        p[17:68, 0] += 0.012 * g[20] * (p[17:68, 1] + 0.3)
        p[48:68, 1] += 0.05 * g[21] * p[48:68, 0]
        p[48:68, 0] += 0.022 * g[24]
        p[17:27, 1] += 0.04 * g[22] * p[17:27, 0]
    return p


def _open_mouth(face: Floats, expression: Expression, *, upper: float, lower: float) -> None:
    """Close the mean mouth, set the lips' thickness, then open it by the expression's gap; in place."""
    corner_y = face[[48, 54], 1].mean()
    inner = (face[61:64] + face[[67, 66, 65]]) / 2
    inner[:, 1] = inner[:, 1].mean() + np.array([-0.006, 0.004, -0.006])
    up, low = face[_UPPER_LIP, 1] - corner_y, face[_LOWER_LIP, 1] - corner_y
    middle = inner[1, 1] - corner_y
    face[_UPPER_LIP, 1] = corner_y + middle * _LIP_WEIGHT + (up - 0.012 * _LIP_WEIGHT) * upper
    face[_LOWER_LIP, 1] = corner_y + middle * _LIP_WEIGHT + (low - 0.075 * _LIP_WEIGHT) * lower
    face[61:64, 1], face[[67, 66, 65], 1] = inner[:, 1], inner[:, 1]
    lift, drop = 0.18 * expression.gap, 0.82 * expression.gap
    face[_UPPER_LIP, 1] -= lift * _LIP_WEIGHT
    face[61:64, 1] -= lift * _LIP_WEIGHT[1:4]
    face[_LOWER_LIP, 1] += drop * _LIP_WEIGHT
    face[[67, 66, 65], 1] += drop * _LIP_WEIGHT[1:4]
    face[[48, 54, 60, 64], 1] += 0.35 * expression.gap
    face[48:68, 0] *= 1 - 0.22 * expression.gap
    reach = (face[48:68, 0] / 0.4) ** 2
    face[48:68, 1] -= 0.075 * expression.smile * (reach - 0.25)
    face[_LOWER_LIP, 1] -= 0.03 * expression.smile * _LIP_WEIGHT


def _shape_eye(eye: Floats, sign: float, opening: float, *, size: float, slant: float, apart: float) -> None:
    """Size, tilt, place and opening of one eye; in place. A shut eye's lids meet below the middle."""
    centre = eye.mean(0)
    local = (eye - centre) * size
    corners = local[[0, 3], 1].mean()
    upper = [1, 2]
    lower = [4, 5]
    line = corners + 0.03
    local[upper, 1] = line + (local[upper, 1] - line) * opening
    local[lower, 1] = line + (local[lower, 1] - line) * min(1.0, 0.25 + 0.75 * opening)
    if opening < 0.2:
        local[lower, 1] = np.maximum(local[lower, 1], local[upper, 1][::-1] + 0.004)
    local[:, 1] -= slant * local[:, 0] * sign
    eye[:] = centre + local + (sign * apart, 0.0)


@lru_cache(maxsize=32)
def scheme_weights(scheme: LandmarkScheme) -> Floats:
    """How a scheme's landmarks follow from the 75 controls: landmarks = weights @ controls.

    The scheme's mean face is laid over ours: by name where all its names are ibug-68's, else by the centres
    of the eyes and the mouth (its contour is then drawn onto ours), else by the tight boxes. The thin-plate
    spline of the 75 controls carries each landmark along.

    Returns:
        (K, 75).

    Raises:
        InputError: the scheme has no mean face, or is one of profiles.
    """
    if scheme.name == "ibug-68":
        return np.eye(68, 75)
    if scheme.mean_face is None:
        raise InputError(f"scheme {scheme.name}: to draw faces expected a mean_face, given none; add it to its file")
    if scheme.mirror is None and scheme.components and not _GROUPS.keys() <= scheme.components.keys():
        raise InputError(
            f"scheme {scheme.name}: synthetic faces show both eyes; expected the components {', '.join(_GROUPS)} "
            f"or a mirror, given {', '.join(scheme.components)} and none; draw in another scheme"
        )
    names = {n: i for i, n in enumerate(load_scheme("ibug-68").landmarks)}
    if all(n in names for n in scheme.landmarks):
        return np.eye(68, 75)[[names[n] for n in scheme.landmarks]]
    controls = mean_controls()
    places = _on_our_mean(scheme, controls)
    n = len(controls)
    square = np.zeros((n + 3, n + 3))
    square[:n, :n] = _kernel(controls, controls)
    square[:n, n:] = np.column_stack([np.ones(n), controls])
    square[n:, :n] = square[:n, n:].T
    rows = np.column_stack([_kernel(places, controls), np.ones(len(places)), places])
    return np.asarray(np.linalg.solve(square.T, rows.T).T[:, :n])


def _kernel(a: Floats, b: Floats) -> Floats:
    r2 = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.asarray(r2 * np.log(np.maximum(r2, 1e-12)))


def _on_our_mean(scheme: LandmarkScheme, controls: Floats) -> Floats:
    """The scheme's mean face in our frame, (K, 2)."""
    assert scheme.mean_face is not None
    theirs, ours = scheme.mean_face.astype(np.float64), controls[:68]
    if all(scheme.components.get(n) for n in _GROUPS):
        a = np.array([_middle(theirs[list(scheme.components[n])]) for n in _GROUPS])
        b = np.array([_middle(ours[part]) for part in _GROUPS.values()])
    else:
        a, b = _corners(theirs), _corners(ours)
    affine, *_ = np.linalg.lstsq(np.column_stack([a, np.ones(3)]), b, rcond=None)
    places = np.column_stack([theirs, np.ones(len(theirs))]) @ affine
    contour = list(scheme.components.get("contour", ()))
    if contour:
        outline = Outline(controls)
        share = outline.fraction(places[contour])
        near = (share > 0.7) & (share < 1.4)
        share[~near] = 1.0
        places[contour] = CENTRE + (places[contour] - CENTRE) / share[:, None]
    return np.asarray(places)


def _middle(points: FloatArray) -> Floats:
    """The centre of the tight box, which does not depend on where along an outline its points lie."""
    return np.asarray((np.min(points, 0) + np.max(points, 0)) / 2)


def _corners(points: Floats) -> Floats:
    """Three corners of the tight box."""
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    return np.array([(x0, y0), (x1, y0), (x0, y1)])


class Outline:
    """The edge of the face from the front, contour and hairline: a distance from the centre in any direction.

    Attributes:
        points: (24, 2) face frame: contour 0..16, then the hairline from the image's right to its left.
    """

    def __init__(self, controls: Floats) -> None:
        """Args: controls: (75, 2) face frame."""
        self.points = np.concatenate([controls[:17], controls[:67:-1]])
        d = self.points - CENTRE
        angle = np.arctan2(d[:, 0], d[:, 1])  # 0 towards the chin
        self._order = np.argsort(angle)
        self._angle = np.concatenate([angle[self._order] + turn for turn in (-2 * np.pi, 0, 2 * np.pi)])
        self._radius = np.tile(np.hypot(d[:, 0], d[:, 1])[self._order], 3)

    def radius(self, angle: FloatArray) -> Floats:
        """(...) radians, 0 towards the chin -> (...) face units."""
        return np.asarray(np.interp(angle, self._angle, self._radius))

    def along(self, values: FloatArray, angle: FloatArray) -> Floats:
        """Values given at the 24 points, (24,), in every direction."""
        return np.asarray(np.interp(angle, self._angle, np.tile(np.asarray(values)[self._order], 3)))

    def fraction(self, points: FloatArray) -> Floats:
        """(..., 2) face frame -> (...): 0 at the centre, 1 on the outline."""
        dx, dy = points[..., 0] - CENTRE[0], points[..., 1] - CENTRE[1]
        return np.asarray(np.hypot(dx, dy) / self.radius(np.arctan2(dx, dy)))
