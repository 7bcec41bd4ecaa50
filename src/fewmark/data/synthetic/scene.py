"""What stands behind a synthetic face: background, body, hair, skull and ears; and the hair at its edge."""
# ruff: noqa: RUF005 - arrays are added here, not joined

from __future__ import annotations

import cv2
import numpy as np

from fewmark.core.geometry import FloatArray, Floats, Image
from fewmark.data.synthetic.appearance import Appearance
from fewmark.data.synthetic.brush import Brush, clouds, fixed, random_part, smooth, strands
from fewmark.data.synthetic.photo import Light
from fewmark.data.synthetic.pose import Camera, Relief
from fewmark.data.synthetic.shape import CENTRE

SKULL, SKULL_AXES = np.array([0.0, -0.26, -0.88]), np.array([1.13, 1.06, 1.15])


def _ball() -> Floats:
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, 21)[:-1], np.linspace(0.15, np.pi - 0.15, 11))
    return np.column_stack([(np.cos(a) * np.sin(b)).ravel(), -np.cos(b).ravel(), (np.sin(a) * np.sin(b)).ravel()])


BALL = _ball()


def hull(points: FloatArray) -> Floats:
    """The convex hull, in order, (M, 2)."""
    return np.asarray(cv2.convexHull(np.asarray(points, np.float32))[:, 0], np.float64)


def paint_background(rng: np.random.Generator, size: int) -> Image:
    """A gradient, a cloudy texture or a clutter of shapes, in or out of focus; (size, size, 3)."""
    n = size // 2
    a, b = rng.uniform(5, 250, 3), rng.uniform(5, 250, 3)
    if rng.random() < 0.5:  # colours of the same family
        b = np.clip(a + rng.normal(0, 45, 3), 0, 255)
    pale = rng.random() * 0.95  # rooms and streets are mostly greyish
    a, b = a + (a.mean() - a) * pale, b + (b.mean() - b) * pale
    table = np.linspace(a, b, 256).astype(np.uint8)
    if rng.random() < 0.6:
        level = random_part(clouds(), (n, n), rng, zoom=float(rng.uniform(1, 6)))
    else:
        dx, dy = rng.normal(0, 128, 2)
        ramp = np.arange(n) / n - 0.5
        level = np.clip(128 + dx * ramp + dy * ramp[:, None], 0, 255).astype(np.uint8)
    image = cv2.LUT(cv2.merge([level] * 3), table[None])
    for _ in range(int(rng.integers(2, 16)) if rng.random() < 0.6 else 0):
        hue = rng.uniform(-100, 100, 3) * rng.random() ** 2
        colour = np.clip(rng.uniform(0, 255) + hue, 0, 255).tolist()
        centre, extent = rng.uniform(0, n, 2), rng.uniform(0.03, 0.4) * n
        kind = rng.random()
        if kind < 0.5:
            sides = extent, extent * rng.uniform(0.2, 3)
            corners = cv2.boxPoints(((centre[0], centre[1]), sides, float(rng.normal(0, 15))))
            cv2.fillPoly(image, [fixed(corners)], colour, cv2.LINE_AA, 4)
        elif kind < 0.7:
            cv2.circle(image, fixed(centre).tolist(), int(extent * 8), colour, -1, cv2.LINE_AA, 4)
        else:
            a, b = fixed(np.array([centre, centre + rng.normal(0, 0.6 * n, 2)])).tolist()
            cv2.line(image, a, b, colour, int(rng.integers(1, 8)), cv2.LINE_AA, 4)
    if rng.random() < 0.6:
        k = 2 * int(rng.uniform(1, 0.06 * n)) + 1
        image = cv2.stackBlur(image, (k, k))
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


class Scene:
    """The image as it is painted, and what lies over the face.

    Attributes:
        image: (size, size, 3), painted in place.
        cover: (size, size) 255 where something hides the face.
        camera: image px from the face frame.
        controls: (75, 2) face frame.
        lamp: on the face.
        light: brightness factor of hair, body and things.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: int,
        camera: Camera,
        controls: Floats,
        relief: Relief,
        appearance: Appearance,
        lamp: Light,
    ) -> None:
        self.rng, self.size, self.camera, self.controls = rng, size, camera, controls
        self.relief, self.appearance = relief, appearance
        self.lamp, self.light = lamp, lamp.even + 0.6 * lamp.strength
        self.image = paint_background(rng, size)
        self.cover = np.zeros((size, size), np.uint8)
        self.unit = camera.scale
        self.brush = Brush(self.image, self.unit)
        self.hairy = bool(rng.random() < 0.94)
        self.long = bool(self.hairy and rng.random() < 0.4)
        piece = random_part(strands(), (size, size), rng, zoom=float(rng.uniform(1.0, 2.2)))
        self._strands = cv2.merge([piece] * 3)
        rough = float(rng.uniform(0.4, 0.85)) if self.hairy else 0.1
        self.hair = self.woven(appearance.hair if self.hairy else appearance.skin * 0.9, rough)

    def woven(self, colour: FloatArray, rough: float) -> Image:
        """(size, size, 3) of streaks in a colour, from plain (0) to coarse (1)."""
        level = 1 + (np.arange(256)[:, None] / 128 - 1) * rough
        table = np.clip(np.asarray(colour) * self.light * level, 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(self._strands, table[None]), np.uint8)

    def fill(self, outline: FloatArray, what: FloatArray | Image, blur: float = 0.0, *, covers: bool = False) -> None:
        """Fill an outline (image px) with a colour or with an image of the scene's size.

        Args:
            blur: of the edge, face units.
            covers: whether it hides the face.
        """
        rows, columns, mask = self.brush.soft([outline], what, 1.0, blur)
        if covers and mask.size:
            part = self.cover[rows, columns]
            np.maximum(part, mask, out=part)

    def on_face(self, points: FloatArray, off: float = 0.03) -> Floats:
        """(N, 2) face frame -> image px, `off` above the skin."""
        return self.camera(self.relief.lift(points) + (0, 0, off))

    def paint_behind(self) -> None:
        """Hair behind, neck, clothes, skull and ears."""
        rng, appearance, u, off = self.rng, self.appearance, self.unit, self.brush.off
        volume = float(rng.uniform(1.0, 1.2) if rng.random() < 0.8 else rng.uniform(1.2, 1.45))
        neck = self.camera(np.array([0.0, 1.05, -0.75]))
        chin = self.camera(self.relief.lift(self.controls[8]))
        if self.long:
            side, length = rng.uniform(1.1, 1.45), rng.uniform(1.2, 3.0)
            half = np.array([(0.9, -0.7, -1), (side, 0.1, -1.0), (side * 1.05, length, -0.9), (0.3, length + 0.2, -1)])
            behind = np.concatenate([half, half[::-1] * (-1, 1, 1)])
            self.fill(smooth(self.camera(behind)), cv2.convertScaleAbs(self.hair, alpha=0.7), 0.02)
        w = rng.uniform(0.55, 0.95)
        foot = off(neck + (0.35 * (chin - neck)[0], 0), 0, 1.25)
        flare = rng.uniform(1.0, 1.35)
        sides = np.array([off(neck, -w, -0.3), off(neck, w, -0.3), off(foot, flare * w, 0), off(foot, -flare * w, 0)])
        self.fill(smooth(sides, closed=False), self._neck_skin(float(neck[0]), w * u), 0.02)
        shadow = np.array([off(chin, -0.8, -0.4), off(chin, 0.8, -0.4), off(chin, 0.35, 0.3), off(chin, -0.35, 0.3)])
        self.brush.soft([shadow], appearance.skin * 0.35 * self.light, float(rng.uniform(0.05, 0.65)), 0.12)
        if rng.random() < 0.3:  # a double chin
            fold = self.camera(self.relief.lift(self.controls[4:13] * (rng.uniform(0.8, 1.0), 1)))
            fold = off(fold, 0, rng.uniform(0.08, 0.25))
            self.brush.soft(
                [smooth(fold, closed=False)],
                appearance.skin * 0.4 * self.light,
                float(rng.uniform(0.2, 0.7)),
                0.03,
                width=0.04,
            )
        collar = off(foot, 0, -rng.uniform(0.1, 0.75))
        cloth = self.woven(rng.uniform(10, 245) + rng.uniform(-90, 90, 3) * rng.random(), float(rng.uniform(0.05, 0.5)))
        half = np.array([(0.0, rng.uniform(0, 0.5)), (0.78, 0), (2.1, 0.6), (2.3, 4)])
        self.fill(np.concatenate([half, half[:0:-1] * (-1, 1)]) * u + collar, cloth)
        swell = SKULL_AXES * (volume if self.hairy else 1.0)
        self.fill(hull(self.camera(SKULL + BALL * swell)), self.hair, 0.012)
        if not self.long or rng.random() < 0.3:
            self._ears()

    def _neck_skin(self, middle: float, half: float) -> Image:
        """(size, size, 3) the skin of an upright cylinder about the column `middle`, `half` px wide to either side."""
        across = np.clip((np.arange(self.size, dtype=np.float32) - middle) / half, -1, 1)
        x, _, z = self.lamp.direction
        level = self.lamp.even + self.lamp.strength * np.clip(x * across + z * np.sqrt(1 - across**2), 0, None)
        skin = self.appearance.skin * self.rng.uniform(0.75, 1.0) * level[:, None]
        row = np.clip(skin, 0, 255).astype(np.uint8)
        grain = random_part(clouds(), (self.size, self.size), self.rng)
        factor = cv2.convertScaleAbs(grain, alpha=0.08, beta=128 * 0.92)
        image = np.broadcast_to(row, (self.size, *row.shape))
        return np.asarray(cv2.multiply(np.ascontiguousarray(image), cv2.merge([factor] * 3), scale=1 / 128), np.uint8)

    def _ears(self) -> None:
        flare, tall = self.rng.uniform(0.35, 0.8), self.rng.uniform(0.24, 0.33)
        t = np.linspace(0, 2 * np.pi, 17)[:-1]
        deep, high = np.cos(t) * 0.17, np.sin(t) * tall * (1 + 0.15 * np.cos(t))
        rim = np.column_stack([1.06 + flare * (0.15 + deep), 0.2 + high - 0.15 * deep, -1.05 - deep])
        seen = [self.camera(rim), self.camera(rim * (-1, 1, 1))]
        skin = self.appearance.skin * (0.97, 0.88, 0.86) * self.light
        self.brush.soft(seen, skin * 0.88, 1.0)
        inner = [(s[2:13] - s.mean(0)) * 0.62 + s.mean(0) for s in seen]
        self.brush.soft(inner, skin * 0.55, 0.6, 0.02, width=0.05)

    def paint_hair(self) -> None:
        """The hairline or a fringe over the face, and long hair at its sides."""
        if self.hairy:
            if self.rng.random() < 0.4:
                self._fringe()
            else:
                self._hairline()
        if self.long and self.rng.random() < 0.6:
            self._side_hair()

    def _locks(self, roots: Floats, tips: Floats) -> None:
        """Single strands (image px) in the hair's colour."""
        curves = np.stack([roots, tips], 1)
        shade = self.appearance.hair * self.light
        self.brush.soft(curves[::2], shade * 0.75, 0.8, 0.0, width=0.015)
        self.brush.soft(curves[1::2], shade * 1.2, 0.8, 0.0, width=0.015)

    def _hairline(self) -> None:
        rng = self.rng
        h = smooth(self.controls[68:], closed=False, n=5)
        bump = np.convolve(rng.normal(0, 0.045, len(h) + 4), np.ones(5) / 5, "valid")
        inner = CENTRE + (h - CENTRE) * (0.985 - np.abs(bump))[:, None]
        outer = CENTRE + (h - CENTRE) * 1.06
        strip = np.concatenate([self.on_face(inner, 0.0), self.on_face(outer, 0.0)[::-1]])
        self.fill(strip, self.hair, 0.03, covers=True)
        if rng.random() < 0.6:
            k = rng.integers(0, len(h), 40)
            tips = CENTRE + (h[k] - CENTRE) * rng.uniform(0.86, 0.98, (40, 1)) + rng.normal(0, 0.05, (40, 2))
            self._locks(self.on_face(outer[k], 0.03), self.on_face(tips, 0.02))

    def _fringe(self) -> None:
        rng, n = self.rng, 31
        x = np.linspace(-1.0, 1.0, n)
        top = np.interp(x, self.controls[68:, 0], self.controls[68:, 1])
        depth = np.interp(x, np.linspace(-1, 1, 5), rng.uniform(0.02, 1.0, 5) * rng.uniform(0.3, 1.0))
        lower = np.minimum(top + np.maximum(depth + rng.uniform(-0.06, 0.06, n), 0.02), 0.02)
        edge = np.column_stack([x, lower])
        outer = np.column_stack([x * 1.04, np.minimum(top - 0.1, lower - 0.1)])
        seen = smooth(self.on_face(edge, 0.06), closed=False, n=3)
        self.fill(np.concatenate([seen, self.on_face(outer, 0.0)[::-1]]), self.hair, 0.012, covers=True)
        k = rng.integers(0, n, 50)
        tips = edge[k] + rng.uniform((-0.06, 0.0), (0.06, 0.13), (50, 2))
        self._locks(self.on_face(edge[k] * 0.85 + outer[k] * 0.15, 0.06), self.on_face(tips, 0.06))

    def _side_hair(self) -> None:
        rng = self.rng
        for sign in (-1, 1):
            if rng.random() < 0.25:
                continue
            y = np.linspace(-0.9, rng.uniform(0.8, 2.2), 9)
            into = np.interp(y, [-0.9, -0.3, 0.5, 1.4, 2.2], rng.uniform(0.55, 1.0, 5) + (0, 0.15, 0.12, 0, 0))
            near = np.column_stack([sign * into, y, np.interp(y, [-0.9, 0.3, 2.2], [-0.7, -0.85, -0.6])])
            far = np.column_stack([sign * (into + rng.uniform(0.25, 0.5)), y, np.full(9, -0.95)])
            outline = np.concatenate([self.camera(near), self.camera(far)[::-1]])
            self.fill(smooth(outline, n=3), self.hair, 0.015, covers=True)
