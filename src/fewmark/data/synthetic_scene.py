"""What stands behind and before a drawn face: background, body, hair, glasses, hats, hands."""

from __future__ import annotations

import cv2
import numpy as np

from fewmark.data.synthetic_brush import Brush, Picture, clouds, fixed, random_part, smooth, strands
from fewmark.data.synthetic_look import Look
from fewmark.data.synthetic_pose import Camera, Relief
from fewmark.data.synthetic_shape import Points
from fewmark.geometry import FloatArray

_SKULL, _SKULL_AXES = np.array([0.0, -0.26, -0.92]), np.array([1.06, 1.06, 1.2])


def _ball() -> Points:
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, 25)[:-1], np.linspace(0.12, np.pi - 0.12, 13))
    return np.column_stack(
        [(np.cos(a) * np.sin(b)).ravel(), -np.cos(b).ravel(), (np.sin(a) * np.sin(b)).ravel()]
    )


_BALL = _ball()


def hull(points: FloatArray) -> Points:
    """The convex hull, in order, (M, 2)."""
    return np.asarray(cv2.convexHull(np.asarray(points, np.float32))[:, 0], np.float64)


def paint_background(rng: np.random.Generator, size: int) -> Picture:
    """A gradient, a cloudy texture or a clutter of shapes, in or out of focus; (size, size, 3)."""
    n = size // 2
    a, b = rng.uniform(5, 250, 3), rng.uniform(5, 250, 3)
    if rng.random() < 0.6:  # colours of the same family
        b = np.clip(a + rng.normal(0, 35, 3), 0, 255)
    pale = rng.random() * 0.9  # rooms and streets are mostly greyish
    a, b = a + (a.mean() - a) * pale, b + (b.mean() - b) * pale
    table = np.linspace(a, b, 256).astype(np.uint8)
    if rng.random() < 0.6:
        level = random_part(clouds(), (n, n), rng, zoom=float(rng.uniform(1, 6)))
    else:
        direction = rng.normal(0, 1, 2)
        y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n - 0.5
        level = np.clip(128 + 128 * (x * direction[0] + y * direction[1]), 0, 255).astype(np.uint8)
    image = cv2.LUT(cv2.merge([level] * 3), table[None])
    for _ in range(int(rng.integers(0, 14)) if rng.random() < 0.6 else 0):
        colour = (rng.uniform(0, 255) + rng.uniform(0, 1) ** 2 * rng.uniform(-90, 90, 3)).clip(0, 255).tolist()
        centre, extent = rng.uniform(0, n, 2), rng.uniform(0.03, 0.35) * n
        kind = rng.random()
        if kind < 0.45:
            corners = cv2.boxPoints(
                ((centre[0], centre[1]), (extent, extent * rng.uniform(0.2, 3)), float(rng.normal(0, 15)))
            )
            cv2.fillPoly(image, [fixed(corners)], colour, cv2.LINE_AA, 4)
        elif kind < 0.7:
            cv2.circle(image, fixed(centre).tolist(), int(extent * 8), colour, -1, cv2.LINE_AA, 4)
        else:
            other = centre + rng.normal(0, 0.6 * n, 2)
            cv2.line(
                image,
                fixed(centre).tolist(),
                fixed(other).tolist(),
                colour,
                int(rng.integers(1, 8)),
                cv2.LINE_AA,
                4,
            )
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.6, 5)))
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


class Scene:
    """The picture as it is painted, and what lies over the face.

    Attributes:
        image: (size, size, 3), painted in place.
        cover: (size, size) 255 where something hides the face.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: int,
        camera: Camera,
        controls: Points,
        relief: Relief,
        look: Look,
        light: float,
    ) -> None:
        """Args: light: brightness factor of hair, body and objects."""
        self.rng, self.size, self.camera, self.relief, self.look = rng, size, camera, relief, look
        self.controls, self.light = controls, light
        self.image = paint_background(rng, size)
        self.cover = np.zeros((size, size), np.uint8)
        self.unit = camera.scale
        self.brush = Brush(self.image, self.unit)
        bald = rng.random() < 0.06
        self.hairy = not bald
        self.long = bool(self.hairy and rng.random() < 0.4)
        self.volume = float(rng.uniform(1.0, 1.2) if rng.random() < 0.8 else rng.uniform(1.2, 1.45))
        piece = random_part(strands(), (size, size), rng, zoom=float(rng.uniform(1.0, 2.2)))
        self._strands = cv2.merge([piece] * 3)
        self._hair = self._woven(
            look.hair if self.hairy else look.skin * 0.9, rough=1.0 if self.hairy else 0.15
        )

    def _woven(self, colour: FloatArray, rough: float = 1.0) -> Picture:
        """(size, size, 3) of streaks in a colour."""
        level = 1 + (np.arange(256)[:, None] / 128 - 1) * rough
        table = np.clip(np.asarray(colour) * self.light * level, 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(self._strands, table[None]), np.uint8)

    def _fill(
        self, points: FloatArray, what: Picture | FloatArray, *, covers: bool = False, soft: float = 0.6
    ) -> None:
        """Fill an outline (image px) with a colour or a picture of the scene's size."""
        p = np.asarray(points)
        lo = np.clip(np.floor(p.min(0)) - 4, 0, self.size).astype(int)
        hi = np.clip(np.ceil(p.max(0)) + 5, 0, self.size).astype(int)
        if (hi <= lo).any():
            return
        part = np.s_[lo[1] : hi[1], lo[0] : hi[0]]
        mask = np.zeros((hi[1] - lo[1], hi[0] - lo[0]), np.uint8)
        cv2.fillPoly(mask, [fixed(p - lo)], 255, cv2.LINE_AA, 4)
        if soft > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), soft)
        paint = what[part] if what.ndim == 3 else np.full((*mask.shape, 3), np.clip(what, 0, 255), np.uint8)
        weight = mask.astype(np.float32) * np.float32(1 / 255)
        self.image[part] = cv2.blendLinear(
            np.ascontiguousarray(paint), np.ascontiguousarray(self.image[part]), weight, 1 - weight
        )
        if covers:
            np.maximum(self.cover[part], mask, out=self.cover[part])

    def paint_behind(self) -> None:
        """Hair behind, neck, shoulders, skull and ears."""
        rng, look, u, camera = self.rng, self.look, self.unit, self.camera
        neck = camera(np.array([0.0, 1.05, -0.75]))
        chin = camera(self.relief.lift(self.controls[8]))
        if self.long:
            side = rng.uniform(1.1, 1.45)
            length = rng.uniform(1.2, 3.0)
            behind = np.array([(-0.9, -0.7, -1), (-side, 0.1, -1.0), (-side * 1.05, length, -0.9), (-0.3, length + 0.2, -1), (0.3, length + 0.2, -1),
                               (side * 1.05, length, -0.9), (side, 0.1, -1.0), (0.9, -0.7, -1)])  # fmt: skip
            self._fill(smooth(camera(behind)), cv2.convertScaleAbs(self._hair, alpha=0.7), soft=1.5)
        w = rng.uniform(0.5, 0.72)
        foot = neck + (0.35 * (chin - neck)[0], 1.25 * u)
        skin = look.skin * self.light * rng.uniform(0.6, 0.95)
        self._fill(
            np.array(
                [
                    neck + (-w * u, -0.3 * u),
                    neck + (w * u, -0.3 * u),
                    foot + (w * 1.12 * u, 0),
                    foot + (-w * 1.12 * u, 0),
                ]
            ),
            skin,
            soft=1.2,
        )
        self.brush.soft(np.array([chin + (-0.8 * u, -0.4 * u), chin + (0.8 * u, -0.4 * u), chin + (0.35 * u, 0.3 * u), chin + (-0.35 * u, 0.3 * u)]),
                        look.skin * 0.35 * self.light, 0.45, 0.12)  # fmt: skip
        collar = foot[1] - rng.uniform(0.1, 0.75) * u
        cloth = self._woven(rng.uniform(10, 245, 3), rough=float(rng.uniform(0.05, 0.5)))
        dip = rng.uniform(0, 0.5) * u
        x = foot[0]
        self._fill(np.array([(x - 0.78 * u, collar), (x, collar + dip), (x + 0.78 * u, collar), (x + 2.1 * u, collar + 0.6 * u), (x + 2.3 * u, collar + 4 * u),
                             (x - 2.3 * u, collar + 4 * u), (x - 2.1 * u, collar + 0.6 * u)]), cloth, soft=0.8)  # fmt: skip
        swell = np.array([1.0, 1.0, 1.0]) * (self.volume if self.hairy else 1.0)
        self._fill(hull(camera(_SKULL + _BALL * _SKULL_AXES * swell)), self._hair, soft=1.5)
        if not self.long or rng.random() < 0.3:
            self._ears()

    def _ears(self) -> None:
        flare, tall = self.rng.uniform(0.35, 0.8), self.rng.uniform(0.24, 0.33)
        t = np.linspace(0, 2 * np.pi, 17)[:-1]
        for sign in (-1, 1):
            deep, high = np.cos(t) * 0.17, np.sin(t) * tall * (1 + 0.15 * np.cos(t))
            rim = np.column_stack(
                [sign * (0.99 + flare * (0.15 + deep)), 0.2 + high - 0.15 * deep, -1.2 - deep]
            )
            seen = self.camera(rim)
            skin = self.look.skin * (0.97, 0.88, 0.86) * self.light
            self._fill(seen, skin * 0.88, soft=0.8)
            middle = seen.mean(0)
            self.brush.soft((seen[2:13] - middle) * 0.62 + middle, skin * 0.55, 0.6, 0.02, width=0.05)

    def paint_before(self) -> None:
        """Whatever is over the face: fringe, hair at the sides, hat, glasses, hands, things, masks, scarves."""
        rng = self.rng
        u = rng.random(8)
        if self.hairy and u[0] < 0.4:
            self._fringe()
        elif self.hairy:
            self._hairline()
        if self.long and u[1] < 0.6:
            self._side_hair()
        if u[2] < 0.03:
            self._mask()
        if u[3] < 0.24:
            self._glasses(sun=bool(u[3] < 0.05))
        if u[4] < 0.11:
            self._hat()
        if u[5] < 0.04:
            self._scarf()
        if u[6] < 0.13:
            self._hand()
        if u[7] < 0.08:
            self._thing()

    def _on_face(self, points: FloatArray, off: float = 0.03) -> Points:
        """(N, 2) face frame -> image px, `off` above the skin."""
        return self.camera(self.relief.lift(points) + (0, 0, off))

    def _hairline(self) -> None:
        """A ragged edge where the hair begins."""
        h = smooth(self.controls[68:], closed=False, n=5)
        inner = _CENTRE_PULL + (h - _CENTRE_PULL) * (1 - np.abs(self.rng.normal(0.02, 0.03, (len(h), 1))))
        outer = _CENTRE_PULL + (h - _CENTRE_PULL) * 1.06
        self._fill(
            np.concatenate([self._on_face(inner, 0.0), self._on_face(outer, 0.0)[::-1]]),
            self._hair,
            covers=True,
            soft=2.0,
        )

    def _fringe(self) -> None:
        rng = self.rng
        n = 26
        x = np.linspace(-1.0, 1.0, n)
        top = np.interp(x, self.controls[68:, 0], self.controls[68:, 1])
        depth = np.interp(
            x, np.linspace(-1, 1, 5), rng.uniform(0.02, 1.0, 5) * rng.uniform(0.3, 1.0)
        ) + rng.uniform(-0.05, 0.07, n)
        lower = np.minimum(top + np.maximum(depth, 0.02), 0.02)
        outer = np.column_stack([x * 1.04, np.minimum(top - 0.1, lower - 0.1)])
        strip = np.concatenate(
            [self._on_face(np.column_stack([x, lower]), 0.06), self._on_face(outer, 0.0)[::-1]]
        )
        self._fill(strip, self._hair, covers=True, soft=1.0)

    def _side_hair(self) -> None:
        rng = self.rng
        for sign in (-1, 1):
            if rng.random() < 0.25:
                continue
            y = np.linspace(-0.9, rng.uniform(0.8, 2.2), 9)
            into = np.interp(
                y, [-0.9, -0.3, 0.5, 1.4, 2.2], rng.uniform(0.55, 1.0, 5) + (0, 0.15, 0.12, 0, 0)
            )
            a = np.column_stack([sign * into, y, np.interp(y, [-0.9, 0.3, 2.2], [-0.75, -0.95, -0.6])])
            b = np.column_stack([sign * (into + rng.uniform(0.25, 0.5)), y, np.full(9, -1.0)])
            self._fill(
                np.concatenate([self.camera(a), self.camera(b)[::-1]]), self._hair, covers=True, soft=1.2
            )

    def _glasses(self, sun: bool) -> None:
        rng, u = self.rng, self.unit
        colour = (rng.uniform(5, 60, 3) if rng.random() < 0.75 else rng.uniform(60, 230, 3)) * self.light
        wide, high, power = rng.uniform(0.27, 0.36), rng.uniform(0.15, 0.27), rng.uniform(2, 6)
        thick = max(1, round(rng.uniform(0.012, 0.06) * u))
        dark = rng.uniform(0.75, 1.0) if sun else (rng.uniform(0.0, 0.25) if rng.random() < 0.5 else 0.0)
        tint = rng.uniform(0, 70, 3) if sun else rng.uniform(120, 255, 3)
        t = np.linspace(0, 2 * np.pi, 29)[:-1]
        shape = np.column_stack(
            [
                np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power),
                np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power),
            ]
        )
        ends = []
        drop = rng.uniform(-0.02, 0.08)
        for eye, sign in ((slice(36, 42), -1), (slice(42, 48), 1)):
            centre = self.controls[eye].mean(0)
            z = self.relief.lift(centre)[2] + 0.14
            rim = np.column_stack(
                [
                    centre[0] + sign * 0.03 + shape[:, 0] * wide,
                    centre[1] + drop + shape[:, 1] * high,
                    np.full(28, z),
                ]
            )
            rim[:, 2] -= 0.25 * np.maximum(0, (rim[:, 0] - centre[0]) * sign)
            seen = self.camera(rim)
            if dark:
                self.brush.soft(seen, tint, dark, 0.0)
                if sun and dark > 0.7:
                    cv2.fillPoly(self.cover, [fixed(seen)], 255, cv2.LINE_AA, 4)
            if rng.random() < 0.3:
                a, b = seen[18], seen[24]
                self.brush.soft(
                    np.array([a, b, (a + b) / 2 + (0, 0.12 * u)]),
                    np.array([250, 250, 255]),
                    rng.uniform(0.1, 0.7),
                    0.03,
                    within=[seen],
                )
            cv2.polylines(self.image, [fixed(seen)], True, colour.tolist(), thick, cv2.LINE_AA, 4)
            ends.append(rim[14 if sign > 0 else 0])
            temple = rim[0 if sign > 0 else 14]
            ear = self.camera(np.array([sign * 1.08, 0.02, -1.1]))
            if (ear[0] - self.camera(temple)[0]) * sign > 0:
                cv2.line(
                    self.image,
                    fixed(self.camera(temple)).tolist(),
                    fixed(ear).tolist(),
                    (colour * 0.8).tolist(),
                    thick,
                    cv2.LINE_AA,
                    4,
                )
        bridge = np.array([ends[0], (ends[0] + ends[1]) / 2 + (0, -0.05, 0.06), ends[1]])
        cv2.polylines(self.image, [fixed(self.camera(bridge))], False, colour.tolist(), thick, cv2.LINE_AA, 4)

    def _hat(self) -> None:
        rng = self.rng
        line = float(self.controls[68:, 1].min() + rng.uniform(0.05, 0.6))
        swell = _SKULL_AXES * rng.uniform(1.1, 1.3) * (1.0, rng.uniform(0.95, 1.3), 1.0)
        dome = _SKULL + _BALL * swell
        dome[:, 1] = np.minimum(dome[:, 1], line)
        cloth = self._woven(rng.uniform(5, 240, 3), rough=float(rng.uniform(0.1, 1)))
        outline = hull(self.camera(dome))
        self._fill(outline, cloth, covers=True, soft=0.8)
        kind = rng.random()
        t = np.linspace(0, np.pi, 13)
        if kind < 0.45:  # a visor
            reach = rng.uniform(0.3, 0.9)
            visor = np.column_stack(
                [np.cos(t) * 0.85, np.full(13, line + 0.03), _SKULL[2] + swell[2] * 0.8 + np.sin(t) * reach]
            )
            self._fill(hull(self.camera(visor)), cv2.convertScaleAbs(cloth, alpha=0.7), covers=True)
        elif kind < 0.65:  # a brim all round
            t2 = np.linspace(0, 2 * np.pi, 25)
            brim = np.column_stack(
                [np.cos(t2) * swell[0] * 1.5, np.full(25, line), _SKULL[2] + np.sin(t2) * swell[2] * 1.4]
            )
            self._fill(hull(self.camera(brim)), cv2.convertScaleAbs(cloth, alpha=0.75), covers=True)

    def _mask(self) -> None:
        c = self.controls
        outline = np.concatenate([c[2:15] + (c[2:15] - c[30]) * 0.02, c[[13, 35, 29, 31, 3]] * (1, 1)])
        outline[-3] = c[28] * 0.6 + c[29] * 0.4
        colour = np.array([(225, 228, 232), (150, 190, 215), (35, 35, 40), (120, 160, 140)])[
            self.rng.integers(4)
        ]
        seen = self._on_face(outline, 0.07)
        self._fill(seen, self._woven(colour, rough=0.12), covers=True)
        for k in (0.25, 0.5, 0.75):
            a, b = self._on_face(np.array([c[3] * (1 - k) + c[5] * k, c[13] * (1 - k) + c[11] * k]), 0.07)
            self.brush.soft(
                np.array([a, (a + b) / 2 + (0, 0.12 * self.unit), b]), colour * 0.7, 0.4, 0.01, width=0.02
            )

    def _scarf(self) -> None:
        c, rng = self.controls, self.rng
        level = rng.uniform(0.75, 1.4)
        x = np.linspace(-1.15, 1.15, 9)
        top = self.camera(
            np.column_stack(
                [
                    x,
                    level + rng.normal(0, 0.05, 9) + 0.1 * (1 - x**2),
                    np.interp(np.abs(x), [0, 1.15], [0.15, -1.0]),
                ]
            )
        )
        bottom = self.camera(np.column_stack([x * 1.2, np.full(9, c[8, 1] + 1.3), np.full(9, -0.3)]))
        self._fill(
            np.concatenate([smooth(top, closed=False), bottom[::-1]]),
            self._woven(rng.uniform(10, 240, 3), rough=0.8),
            covers=True,
        )

    def _hand(self) -> None:
        """Fingers and a palm that come in from outside."""
        rng, u = self.rng, self.unit
        place = self._on_face(
            self.controls[int(rng.choice([0, 3, 6, 8, 10, 13, 16, 48, 54, 36, 45, 19, 24, 33]))]
        )
        centre = self.camera(np.array([0.0, 0.3, 0.0]))
        away = place - centre + rng.normal(0, 0.3, 2) * u
        away /= np.linalg.norm(away) + 1e-6
        side = np.array([-away[1], away[0]])
        width = rng.uniform(0.17, 0.25) * u
        skin = self.look.skin * rng.uniform(0.8, 1.05) * self.light
        tip = place - away * rng.uniform(0.1, 0.5) * u
        palm = tip + away * rng.uniform(0.9, 1.3) * u
        strokes = [
            (palm, palm + away * 3 * u, width * 3.4),
            (palm + away * 0.2 * u, palm + away * 0.5 * u, width * 4),
        ]
        n = int(rng.integers(2, 5))
        for k in range(n):
            at = (k - (n - 1) / 2) * width * 1.06
            strokes.append(
                (tip + side * at * 1.15 + away * rng.uniform(0, 0.25) * u, palm + side * at, width)
            )
        for a, b, w in strokes:
            for colour, share in (
                (skin * 0.55, 1.0),
                (skin * 0.92, 0.88),
                (np.minimum(skin * 1.06, 255), 0.45),
            ):
                ends = fixed(a).tolist(), fixed(b).tolist()
                cv2.line(
                    self.image,
                    *ends,
                    np.clip(colour, 0, 255).tolist(),
                    max(1, int(w * share)),
                    cv2.LINE_AA,
                    4,
                )
            cv2.line(self.cover, fixed(a).tolist(), fixed(b).tolist(), 255, max(1, int(w)), cv2.LINE_AA, 4)

    def _thing(self) -> None:
        """A box or a disc: a telephone, a microphone, a cup, somebody's head."""
        rng, u = self.rng, self.unit
        at = self._on_face(self.controls[int(rng.integers(0, 68))]) + rng.normal(0, 0.4, 2) * u
        wide, tall = rng.uniform(0.25, 0.8, 2) * u
        if rng.random() < 0.5:
            outline = cv2.boxPoints(((at[0], at[1]), (wide, tall * 1.5), float(rng.uniform(-60, 60)))).astype(
                np.float64
            )
        else:
            t = np.linspace(0, 2 * np.pi, 25)[:-1]
            outline = at + np.column_stack([np.cos(t) * wide, np.sin(t) * tall])
        self._fill(
            outline, self._woven(rng.uniform(0, 255, 3), rough=float(rng.uniform(0, 0.7))), covers=True
        )


_CENTRE_PULL = np.array([0.0, 0.25])
