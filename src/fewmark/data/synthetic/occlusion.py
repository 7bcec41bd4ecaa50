"""Objects between a synthetic face and the camera: glasses, hats, masks, scarves, hands and things."""
# ruff: noqa: RUF005 - arrays are added here, not joined

from __future__ import annotations

import cv2
import numpy as np

from fewmark.data.synthetic.brush import fixed, smooth
from fewmark.data.synthetic.scene import BALL, SKULL, SKULL_AXES, Scene, hull


def paint_covers(rng: np.random.Generator, scene: Scene) -> None:
    """Cover the face with zero or more objects."""
    u = rng.random(6)
    if u[0] < 0.03:
        _mask(rng, scene)
    if u[1] < 0.24:
        _glasses(rng, scene, sun=bool(u[1] < 0.05))
    if u[2] < 0.11:
        _hat(rng, scene)
    if u[3] < 0.04:
        _scarf(rng, scene)
    if u[4] < 0.13:
        _hand(rng, scene)
    if u[5] < 0.08:
        _thing(rng, scene)


def _glasses(rng: np.random.Generator, scene: Scene, sun: bool) -> None:
    camera, brush, u = scene.camera, scene.brush, scene.unit
    colour = (rng.uniform(5, 60, 3) if rng.random() < 0.75 else rng.uniform(60, 230, 3)) * scene.light
    wide, high, power = rng.uniform(0.27, 0.36), rng.uniform(0.15, 0.27), rng.uniform(2, 6)
    thick = max(1, round(rng.uniform(0.012, 0.06) * u))
    dark = rng.uniform(0.75, 1.0) if sun else (rng.uniform(0.0, 0.25) if rng.random() < 0.5 else 0.0)
    tint = rng.uniform(0, 70, 3) if sun else rng.uniform(120, 255, 3)
    drop, glare = rng.uniform(-0.02, 0.08), rng.uniform(0.1, 0.7)
    t = np.linspace(0, 2 * np.pi, 29)[:-1]
    corner = np.column_stack([np.cos(t), np.sin(t)])
    shape = np.sign(corner) * np.abs(corner) ** (2 / power) * (wide, high)
    rims, bridge = [], []
    for eye, sign in ((slice(36, 42), -1), (slice(42, 48), 1)):
        centre = scene.controls[eye].mean(0)
        rim = np.column_stack([shape + centre + (sign * 0.03, drop), np.full(28, scene.relief.lift(centre)[2] + 0.14)])
        rim[:, 2] -= 0.25 * np.maximum(0, (rim[:, 0] - centre[0]) * sign)
        rims.append(camera(rim))
        bridge.append(rim[14 if sign > 0 else 0])
        hinge, ear = camera(np.array([rim[0 if sign > 0 else 14], (sign * 1.15, 0.02, -1.0)]))
        if (ear[0] - hinge[0]) * sign > 0:  # the temple is on our side of the face
            start, end = fixed(np.array([hinge, ear])).tolist()
            cv2.line(scene.image, start, end, (colour * 0.8).tolist(), thick, cv2.LINE_AA, 4)
    if dark:
        brush.soft(rims, tint, dark)
        if sun:
            for rim in rims:
                cv2.fillPoly(scene.cover, [fixed(rim)], 255, cv2.LINE_AA, 4)
    if rng.random() < 0.3:
        streaks = [np.array([r[18], r[24], brush.off((r[18] + r[24]) / 2, 0, 0.12)]) for r in rims]
        brush.soft(streaks, np.array([250, 250, 255]), glare, 0.03, within=rims)
    cv2.polylines(scene.image, [fixed(r) for r in rims], True, colour.tolist(), thick, cv2.LINE_AA, 4)
    arch = np.array([bridge[0], (bridge[0] + bridge[1]) / 2 + (0, -0.05, 0.06), bridge[1]])
    cv2.polylines(scene.image, [fixed(camera(arch))], False, colour.tolist(), thick, cv2.LINE_AA, 4)


def _hat(rng: np.random.Generator, scene: Scene) -> None:
    line = float(scene.controls[68:, 1].min() + rng.uniform(0.05, 0.6))
    swell = SKULL_AXES * rng.uniform(1.1, 1.3) * (1.0, rng.uniform(0.95, 1.3), 1.0)
    dome = SKULL + BALL * swell
    dome[:, 1] = np.minimum(dome[:, 1], line)
    cloth = scene.woven(rng.uniform(5, 240) + rng.uniform(-100, 100, 3) * rng.random(), float(rng.uniform(0.1, 0.8)))
    scene.fill(hull(scene.camera(dome)), cloth, covers=True)
    kind = rng.random()
    t = np.linspace(0, np.pi, 13)
    if kind < 0.45:  # a visor
        front = SKULL[2] + swell[2] * 0.8 + np.sin(t) * rng.uniform(0.3, 0.9)
        visor = np.column_stack([np.cos(t) * 0.85, np.full(13, line + 0.03), front])
        scene.fill(hull(scene.camera(visor)), cv2.convertScaleAbs(cloth, alpha=0.7), covers=True)
    elif kind < 0.65:  # a full brim
        brim = np.column_stack([np.cos(2 * t) * swell[0] * 1.5, np.full(13, line), np.sin(2 * t) * swell[2] * 1.4])
        scene.fill(hull(scene.camera(brim + (0, 0, SKULL[2]))), cv2.convertScaleAbs(cloth, alpha=0.75), covers=True)


def _mask(rng: np.random.Generator, scene: Scene) -> None:
    c = scene.controls
    outline = np.concatenate([c[2:15] + (c[2:15] - c[30]) * 0.02, c[[13, 35, 29, 31, 3]]])
    outline[-3] = c[28] * 0.6 + c[29] * 0.4
    colour = np.array([(225, 228, 232), (150, 190, 215), (35, 35, 40), (120, 160, 140)])[rng.integers(4)]
    scene.fill(scene.on_face(outline, 0.07), scene.woven(colour, 0.12), covers=True)
    pleats = []
    for k in (0.25, 0.5, 0.75):
        ends = np.array([c[3] * (1 - k) + c[5] * k, c[13] * (1 - k) + c[11] * k])
        a, b = scene.on_face(ends, 0.07)
        pleats.append(np.array([a, scene.brush.off((a + b) / 2, 0, 0.12), b]))
    scene.brush.soft(pleats, colour * 0.7, 0.4, 0.01, width=0.02)


def _scarf(rng: np.random.Generator, scene: Scene) -> None:
    x = np.linspace(-1.15, 1.15, 9)
    level = rng.uniform(0.75, 1.4) + rng.normal(0, 0.05, 9) + 0.1 * (1 - x**2)
    top = np.column_stack([x, level, np.interp(np.abs(x), [0, 1.15], [0.15, -0.9])])
    bottom = np.column_stack([x * 1.2, np.full(9, scene.controls[8, 1] + 1.3), np.full(9, -0.3)])
    outline = np.concatenate([smooth(scene.camera(top), closed=False), scene.camera(bottom)[::-1]])
    scene.fill(outline, scene.woven(rng.uniform(10, 240, 3), 0.7), covers=True)


def _hand(rng: np.random.Generator, scene: Scene) -> None:
    """Fingers and a palm that come in from outside."""
    u = scene.unit
    where = scene.controls[int(rng.choice([0, 3, 6, 8, 10, 13, 16, 48, 54, 36, 45, 19, 24, 33]))]
    place, centre = scene.on_face(where), scene.camera(np.array([0.0, 0.3, 0.0]))
    away = place - centre + rng.normal(0, 0.3, 2) * u
    away /= np.linalg.norm(away) + 1e-6
    side = np.array([-away[1], away[0]])
    width = rng.uniform(0.17, 0.25) * u
    skin = scene.appearance.skin * rng.uniform(0.8, 1.05) * scene.light
    tip = place - away * rng.uniform(0.1, 0.5) * u
    palm = tip + away * rng.uniform(0.9, 1.3) * u
    strokes = [
        (palm, palm + away * 3 * u, width * 3.4),
        (palm + away * 0.2 * u, palm + away * 0.5 * u, width * 4),
    ]
    n = int(rng.integers(2, 5))
    for k in range(n):
        at = side * (k - (n - 1) / 2) * width
        strokes.append((tip + at * 1.2 + away * rng.uniform(0, 0.25) * u, palm + at * 1.06, width))
    for a, b, w in strokes:
        start, end = fixed(np.array([a, b])).tolist()
        for colour, share in ((skin * 0.55, 1.0), (skin * 0.92, 0.88), (skin * 1.06, 0.45)):
            paint = np.clip(colour, 0, 255).tolist()
            cv2.line(scene.image, start, end, paint, max(1, int(w * share)), cv2.LINE_AA, 4)
        cv2.line(scene.cover, start, end, 255, max(1, int(w)), cv2.LINE_AA, 4)


def _thing(rng: np.random.Generator, scene: Scene) -> None:
    """A box or a disc: a telephone, a microphone, a cup, somebody's head."""
    u = scene.unit
    at = scene.on_face(scene.controls[int(rng.integers(0, 68))]) + rng.normal(0, 0.4, 2) * u
    wide, tall = rng.uniform(0.25, 0.8, 2) * u
    if rng.random() < 0.5:
        outline = cv2.boxPoints(((at[0], at[1]), (wide, tall * 1.5), float(rng.uniform(-60, 60)))).astype(np.float64)
    else:
        t = np.linspace(0, 2 * np.pi, 25)[:-1]
        outline = at + np.column_stack([np.cos(t) * wide, np.sin(t) * tall])
    scene.fill(outline, scene.woven(rng.uniform(0, 255, 3), float(rng.uniform(0, 0.7))), covers=True)
