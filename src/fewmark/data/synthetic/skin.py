"""The skin of a synthetic face as a texture.

Everything is painted from the front, in the face frame, around the landmarks; pose and light are applied later.
"""
# ruff: noqa: RUF005 - arrays are added here, not joined

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import FloatArray, Floats, Image
from fewmark.data.synthetic.appearance import Appearance
from fewmark.data.synthetic.brush import Brush, clouds, fixed, lid, random_part, smooth, strands
from fewmark.data.synthetic.pose import EXTENT, X0, Y0


def paint_face(rng: np.random.Generator, controls: Floats, appearance: Appearance, size: int) -> tuple[Image, float]:
    """The texture of a face seen from the front, without light.

    Args:
        controls: (75, 2) face frame.
        size: side of the texture, px; it covers EXTENT face units from (X0, Y0).

    Returns:
        (size, size, 3) RGB and its px for one face unit; texture px = (face frame - (X0, Y0)) * unit - 0.5.
    """
    unit = size / EXTENT
    p = (controls - (X0, Y0)) * unit - 0.5
    image = _skin(rng, controls, appearance, size)
    brush = Brush(image, unit)
    _lines(rng, brush, p, appearance)
    _beard(rng, brush, p, appearance)
    _nose(rng, brush, p, appearance)
    _mouth(rng, brush, p, appearance)
    _eyes(rng, brush, p, appearance)
    _brows(rng, brush, p, appearance)
    return image, unit


def _skin(rng: np.random.Generator, c: Floats, appearance: Appearance, size: int) -> Image:
    """Blotches, red cheeks and nose, darker eye sockets, pores, freckles."""
    n = 64
    x = (np.arange(n, dtype=np.float32) + 0.5) * np.float32(EXTENT / n) + np.float32(X0)
    y = x[:, None] + np.float32(Y0 - X0)

    def spot(at: FloatArray, wide: float, high: float) -> NDArray[np.float32]:
        across = np.exp(-(((x - at[0]) / wide) ** 2))
        return np.asarray(np.exp(-(((y - at[1]) / high) ** 2)) * across, np.float32)

    blotch = random_part(clouds(), (n, n), rng, zoom=2).astype(np.float32) / 128 - 1
    blotch *= np.float32(rng.uniform(0.02, 0.1))
    red = spot(c[30], 0.17, 0.17) + spot(c[8] - (0, 0.1), 0.2, 0.2)
    red += spot(np.array([-0.58, 0.42]), 0.3, 0.3) + spot(np.array([0.58, 0.42]), 0.3, 0.3)
    red *= np.float32(appearance.redness)
    dark = spot(c[36:42].mean(0) + (0, 0.06), 0.26, 0.14) + spot(c[42:48].mean(0) + (0, 0.06), 0.26, 0.14)
    dark *= np.float32(rng.uniform(0.04, 0.2))
    base = np.empty((n, n, 3), np.uint8)
    for channel, (b, r, d) in enumerate(((0.5, 0.1, 0.8), (1.0, 1.0, 1.0), (1.0, 0.9, 0.95))):
        tinted = appearance.skin[channel] * (1 + b * blotch - r * red - d * dark)
        base[..., channel] = np.clip(tinted, 0, 255)
    image = cv2.resize(base, (size, size), interpolation=cv2.INTER_LINEAR)
    grain = float(rng.uniform(0.03, 0.13))
    pores = random_part(clouds(), (size, size), rng)
    factor = cv2.convertScaleAbs(pores, alpha=grain, beta=128 * (1 - grain))
    image = np.asarray(cv2.multiply(image, cv2.merge([factor] * 3), scale=1 / 128), np.uint8)
    if rng.random() < 0.3:
        places = (rng.uniform((-0.8, -0.9), (0.8, 1.4), (int(rng.integers(1, 25)), 2)) - (X0, Y0)) * size / EXTENT
        radius = int(rng.uniform(0.006, 0.016) * size / EXTENT * 16)
        for at in fixed(places).tolist():
            cv2.circle(image, at, radius, (appearance.skin * 0.72).tolist(), -1, cv2.LINE_AA, 4)
    return image


def _lines(rng: np.random.Generator, brush: Brush, p: Floats, appearance: Appearance) -> None:
    """Folds at the sides of the mouth, eye bags and wrinkles."""
    dark = appearance.skin * np.array([0.66, 0.56, 0.54])
    off = brush.off
    smile = max(0.0, float(p[62, 1] - p[[48, 54], 1].mean()) / brush.unit * 4)
    folds, bags = [], []
    for wing, corner, s in ((31, 48, -1), (35, 54, 1)):
        halfway = (p[wing] + p[corner]) / 2
        fold = off(p[wing], s * 0.05, -0.06), off(halfway, s * 0.14, -0.03), off(p[corner], s * 0.13, 0)
        folds.append(lid(np.array([*fold, off(p[corner], s * 0.12, 0.14)])))
    for eye, inner, s in ((slice(36, 42), 39, 1), (slice(42, 48), 42, -1)):
        mid = p[eye].mean(0)
        bag = (
            off(p[inner], 0, 0.05),
            off(mid, s * 0.06, 0.15),
            off(mid, -s * 0.08, 0.15),
            off(mid, -s * 0.22, 0.08),
        )
        bags.append(lid(np.array(bag)))
    brush.soft(folds, dark, min(0.9, 0.12 + 0.4 * appearance.age + 0.25 * smile), 0.025, width=0.035)
    brush.soft(bags, dark, 0.08 + 0.35 * appearance.age, 0.02, width=0.025)
    if appearance.age > 0.45:
        wave = np.array([(-0.5, 0.03), (-0.2, -0.02), (0.2, -0.02), (0.5, 0.03)]) * (rng.uniform(0.7, 1.1), 1)
        top = np.array([p[27, 0], p[17:27, 1].min()])
        rows = range(int(rng.integers(1, 5)))
        brush.soft(
            [lid(off(top, 0, -0.16 - 0.13 * k) + wave * brush.unit) for k in rows],
            dark,
            0.3 * appearance.age,
            0.012,
            width=0.02,
        )
        feet = [
            np.array([off(p[outer], s * 0.06, 0.03 * k), off(p[outer], s * 0.2, 0.09 * k + 0.01)])
            for outer, s in ((36, -1), (45, 1))
            for k in (-1, 0, 1)
        ]
        brush.soft(feet, dark, 0.35 * appearance.age, 0.008, width=0.014)


def _beard(rng: np.random.Generator, brush: Brush, p: Floats, appearance: Appearance) -> None:
    if max(appearance.beard, appearance.moustache) <= 0:
        return
    u, off = brush.unit, brush.off
    h, w = brush.image.shape[:2]
    level = np.arange(256)[:, None] / 128
    table = np.clip(np.minimum(appearance.hair, appearance.skin * 0.8) * 0.9 * level, 0, 255).astype(np.uint8)
    hairs = cv2.LUT(cv2.merge([random_part(strands(), (h, w), rng, zoom=1.2)] * 3), table[None])
    if appearance.beard > 0:
        cheek = np.array([(0.78, 0.55), (0.6, 0.85), (0.5, 1.05), (0.3, 1.24), (0.0, 1.28)])
        inner = np.concatenate([cheek, cheek[-2::-1] * (-1, 1)]) * u + off(p[27], 0, 0.046)
        inner[2:7, 1] += p[57, 1] - p[27, 1] - 1.15 * u
        outer = p[1:16] + (p[1:16] - p[30]) * 0.08
        if rng.random() < 0.25:  # a goatee
            outer, inner = p[6:11], inner[2:7] * (0.6, 1) + (0.4 * p[27, 0], 0)
        full = appearance.beard > 0.4
        brush.soft([np.concatenate([outer, inner])], hairs, 0.9 * appearance.beard, 0.05 if full else 0.09)
    if appearance.moustache > 0:
        top = np.array([off(p[35], 0.02, 0.07), off(p[33], 0, 0.05), off(p[31], -0.02, 0.07)])
        lower = (p[48:55] - p[33]) * (1.06, 1) + p[33]
        brush.soft([smooth(np.concatenate([off(lower, 0, 0.01), top]))], hairs, 0.9 * appearance.moustache, 0.022)


def _nose(rng: np.random.Generator, brush: Brush, p: Floats, appearance: Appearance) -> None:
    u, off, dark = brush.unit, brush.off, appearance.skin * np.array([0.5, 0.4, 0.38])
    sides, holes, wings, groove = [], [], [], []
    t = np.linspace(0, 2 * np.pi, 13)[:-1]
    for wing, next_in, brow, eye, s in ((31, 32, 21, 39, -1), (35, 34, 22, 42, 1)):
        side = off(p[brow], -s * 0.03, 0.06), off(p[eye], -s * 0.1, -0.02), off(p[28], s * 0.1, 0.1)
        sides.append(lid(np.array([*side, off(p[wing], -s * 0.02, -0.16)])))
        hole = np.column_stack([np.cos(t) * 0.06, np.sin(t) * 0.026 + np.cos(t) * s * 0.012]) * u
        holes.append(hole + off(p[wing] * 0.45 + p[next_in] * 0.55, 0, -0.025))
        edge = off(p[wing], s * 0.01, 0.02), off(p[wing], s * 0.045, -0.04), off(p[wing], s * 0.04, -0.11)
        wings.append(lid(np.array([*edge, off(p[wing], 0, -0.16)])))
        groove.append(np.array([off(p[33], s * 0.035, 0.04), off(p[51], s * 0.06, -0.02)]))
    brush.soft(sides, dark, 0.1 + 0.1 * rng.random(), 0.045, width=0.06)
    depth = float(rng.uniform(0.4, 1.0))
    brush.soft([lid(off(p[[31, 32, 34, 35]], 0, 0.015))], dark, 0.5 * depth, 0.02, width=0.035)
    brush.soft(holes, appearance.skin * np.array([0.22, 0.15, 0.14]) + 6, 0.9 * depth, 0.012)
    brush.soft(wings, dark, 0.55 * depth, 0.014, width=0.022)
    brush.soft(groove, dark, 0.14, 0.015, width=0.02)
    tip = np.array([off(p[29], 0, 0.02), off(p[30], 0, -0.02)])
    brush.soft([tip], appearance.skin * 1.18 + 12, 0.35 * rng.random(), 0.03, width=0.05)


def _round(lip: Floats, gap: float) -> Floats:
    """A lip's edge from corner to corner; two more points make an open mouth round and not a rhombus."""
    up = np.sign(lip[len(lip) // 2, 1] - (lip[0, 1] + lip[-1, 1]) / 2)
    bend = np.array([0.0, 0.16 * gap * up])
    first, last = (lip[0] + lip[1]) / 2 + bend, (lip[-1] + lip[-2]) / 2 + bend
    return smooth(np.concatenate([lip[:1], [first], lip[1:-1], [last], lip[-1:]]), closed=False)


def _mouth(rng: np.random.Generator, brush: Brush, p: Floats, appearance: Appearance) -> None:
    u, off = brush.unit, brush.off
    gap = float(p[66, 1] - p[62, 1]) / u
    wide = gap * u if gap > 0.05 else 0.0
    top, bottom = _round(p[48:55], wide * 0.7), _round(p[[54, 55, 56, 57, 58, 59, 48]], wide * 0.7)
    inner_top, inner_bottom = _round(p[60:65], wide), _round(p[[64, 65, 66, 67, 60]], wide)
    outer = np.concatenate([top, bottom[1:-1]])
    inside = np.concatenate([inner_top, inner_bottom[1:-1]])
    dark = appearance.skin * np.array([0.5, 0.4, 0.4])
    corners = [np.array([off(p[i], -s * 0.03, 0), off(p[i], s * 0.03, 0.01)]) for i, s in ((48, -1), (54, 1))]
    brush.soft([off(bottom, 0, 0.05), *corners], dark, 0.33, 0.025, width=0.036)
    soft = float(rng.uniform(0.006, 0.014))
    depth = float(rng.uniform(0.45, 1.0))  # many lips are hardly redder than the skin
    brush.soft([outer], appearance.lip, 0.95 * depth, soft)
    brush.soft([np.concatenate([top, inner_top[::-1]])], appearance.lip * 0.8, 0.75 * depth, soft)
    pairs = np.array([(59, 67), (58, 67), (56, 65), (55, 65)])
    shine = lid(p[pairs[:, 0]] * 0.55 + p[pairs[:, 1]] * 0.45)
    brush.soft([shine], appearance.lip * 1.25 + 30, float(rng.uniform(0.1, 0.5)), 0.018, width=0.035)
    if gap <= 0.012:
        line = np.concatenate([p[48:49], (p[60:65] + p[[60, 67, 66, 65, 64]]) / 2, p[54:55]])
        brush.soft([smooth(line, closed=False)], appearance.lip * 0.32, 0.9, 0.008, width=0.024)
        return
    brush.soft([inside], np.array([52, 18, 18]) * rng.uniform(0.3, 1.2), 1.0, 0.004)
    if rng.random() < 0.85:  # upper teeth
        show = min(gap * rng.uniform(0.6, 1.0), rng.uniform(0.1, 0.17))
        lower = (inner_top[::-1] - p[62]) * (0.92, 1) + p[62]
        band = np.concatenate([off(inner_top, 0, -0.02), off(lower, 0, show)])
        brush.soft([band], appearance.teeth * rng.uniform(0.75, 1), 0.97, 0.006, within=[inside])
        cracks = [np.array([off(p[62], k * 0.068, -0.02), off(p[62], k * 0.068, show)]) for k in range(-4, 5)]
        brush.soft(cracks, appearance.teeth * 0.6, 0.3, 0.0, width=0.009, within=[inside])
    if gap > 0.2 and rng.random() < 0.8:
        back = (inner_bottom[::-1] - p[66]) * (0.7, 1) + p[66]
        tongue = np.concatenate([inner_bottom, off(back, 0, -0.45 * gap)])
        brush.soft([tongue], np.array([165, 75, 75]) * rng.uniform(0.5, 1), 0.8, 0.03, within=[inside])
    if gap > 0.15 and rng.random() < 0.4:
        band = np.concatenate([inner_bottom, off(inner_bottom[::-1], 0, -0.08)])
        brush.soft([band], appearance.teeth * 0.8, 0.9, 0.01, within=[inside])


def _eyes(rng: np.random.Generator, brush: Brush, p: Floats, appearance: Appearance) -> None:
    """Sockets, lids, eyeballs clipped by the lids, lashes; both eyes at once."""
    off = brush.off
    eyes = p[36:42], p[42:48]
    uppers, lowers = [lid(e[:4]) for e in eyes], [lid(e[[3, 4, 5, 0]]) for e in eyes]
    outlines = [np.concatenate([a, b[1:-1]]) for a, b in zip(uppers, lowers, strict=True)]
    centres = [e.mean(0) for e in eyes]
    dark = appearance.skin * np.array([0.52, 0.42, 0.42])
    sockets = [(o - c) * (1.25, 1.9) + c for o, c in zip(outlines, centres, strict=True)]
    brush.soft(sockets, dark, 0.22, 0.05)
    folds = [off(a, 0, -appearance.crease) for a in uppers]
    if appearance.eyeshadow:
        lids = [np.concatenate([a, off(f[::-1], 0, -0.05)]) for a, f in zip(uppers, folds, strict=True)]
        brush.soft(lids, appearance.shadow_colour, appearance.eyeshadow, 0.025)
    if appearance.crease:
        brush.soft(folds, dark, 0.6, 0.01, width=0.018)
    _eyeballs(rng, brush, eyes, uppers, outlines, appearance)
    brush.soft(lowers, appearance.skin * np.array([0.75, 0.55, 0.52]), 0.65, 0.006, width=0.02)
    lash = np.minimum(appearance.brow * 0.5, 60)
    brush.soft(uppers, lash, 0.55 + 0.4 * appearance.lashes, 0.005, width=0.022 + 0.024 * appearance.lashes)
    if appearance.lashes > 0.5:
        roots = np.concatenate([uppers[0][1:-3], uppers[1][2:-2]])
        away = off((roots - np.repeat(centres, 9, 0)) * 0.28, 0, -0.03)
        hairs = fixed(np.stack([roots, roots + away], 1))
        cv2.polylines(brush.image, list(hairs), False, lash.tolist(), 1, cv2.LINE_AA, 4)
        brush.soft(lowers, lash, 0.4 * appearance.lashes, 0.005, width=0.015)


def _eyeballs(
    rng: np.random.Generator,
    brush: Brush,
    eyes: tuple[Floats, Floats],
    uppers: list[Floats],
    outlines: list[Floats],
    appearance: Appearance,
) -> None:
    u = brush.unit
    every = np.concatenate(outlines)
    x0, y0 = (np.floor(every.min(0)) - 3).astype(int)
    x1, y1 = (np.ceil(every.max(0)) + 4).astype(int)
    shift = np.array([x0, y0])
    white = np.array([232, 226, 222]) * (0.82 + 0.16 * rng.random())
    ball = Brush(np.empty((y1 - y0, x1 - x0, 3), np.uint8), u)
    ball.image[:] = white
    mask = np.zeros(ball.image.shape[:2], np.uint8)
    glint = rng.uniform(-0.03, 0.03, 2)
    glint_radius = round(rng.uniform(0.012, 0.024) * u * 16) if rng.random() < 0.8 else 0
    inner = [np.array([e[i], e[i] * 0.92 + e[j] * 0.08]) - shift for e, i, j in ((eyes[0], 3, 0), (eyes[1], 0, 3))]
    ball.soft(inner, np.array([205, 130, 120]), 0.8, 0.012, width=0.04)
    rings = (
        (1.0, appearance.iris * 0.45),
        (0.84, appearance.iris),
        (0.6, appearance.iris * 1.12),
        (0.4, np.array([8, 7, 9])),
    )
    for eye, outline in zip(eyes, outlines, strict=True):
        at = ball.off(
            eye.mean(0) * 0.5 + (eye[0] + eye[3]) * 0.25 - shift, appearance.gaze[0], appearance.gaze[1] - 0.012
        )
        for share, colour in rings:
            radius = round(0.076 * u * share * 16)
            cv2.circle(ball.image, fixed(at).tolist(), radius, np.clip(colour, 0, 255).tolist(), -1, cv2.LINE_AA, 4)
        if glint_radius:
            spot = fixed(ball.off(at, *glint)).tolist()
            cv2.circle(ball.image, spot, glint_radius, (250, 250, 250), -1, cv2.LINE_AA, 4)
        if float(eye[4:6, 1].mean() - eye[1:3, 1].mean()) > 0.02 * u:  # not shut
            cv2.fillPoly(mask, [fixed(outline - shift)], 255, cv2.LINE_AA, 4)
    ball.soft([a - shift for a in uppers], np.array([50, 35, 32]), 0.6, 0.02, width=0.05)  # the lids' shadow
    brush.lay(int(x0), int(y0), mask, ball.image, 1.0)


def _brows(rng: np.random.Generator, brush: Brush, p: Floats, appearance: Appearance) -> None:
    u = brush.unit
    n = int(45 + 60 * appearance.brow_density)
    bands, hairs = [], []
    for b in (p[17:22], p[26:21:-1]):  # from the tail to the nose
        line = smooth(b, closed=False, n=8)
        t = np.linspace(0, 1, len(line))[:, None]
        width = appearance.brow_width * u * np.interp(t, [0, 0.3, 0.85, 1], [0.15, 0.7, 1.0, 0.75])
        line = line + (0, 0.2) * width  # the labels run a little above the middle
        bands.append(np.concatenate([line - (0, 0.5) * width, (line + (0, 0.5) * width)[::-1]]))
        k = rng.integers(0, len(line) - 1, n)
        root = line[k] + np.column_stack([np.zeros(n), rng.uniform(-0.5, 0.55, n) * width[k, 0]])
        along = line[k] - line[k + 1]  # towards the tail
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-6
        lean = np.interp(t[k, 0], [0, 0.5, 1], [0.25, -0.35, -1.1]) + rng.normal(0, 0.2, n)
        along[:, 1] += lean
        hairs.append(np.stack([root, root + along * u * rng.uniform(0.04, 0.09, (n, 1))], 1))
    brush.soft(bands, appearance.brow, 0.6 * appearance.brow_density, 0.018)
    brush.soft(np.concatenate(hairs), appearance.brow * 0.8, 0.85 * appearance.brow_density, 0.0, width=0.011)
