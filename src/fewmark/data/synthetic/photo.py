"""Light and camera effects on a synthetic face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fewmark.core.geometry import Floats, Image
from fewmark.data.synthetic.pose import Map, Relief


@dataclass(frozen=True, eq=False)
class Light:
    """One lamp over an even light.

    Attributes:
        direction: (3,) unit, towards the lamp, camera frame.
        even: the share of light that comes from everywhere.
        strength: of the lamp.
        shine: of its reflection on the skin.
    """

    direction: Floats
    even: float
    strength: float
    shine: float

    def shade(self, relief: Relief, rotation: Floats) -> tuple[Map, Map]:
        """Factor on the colour and amount of white to add, both over the relief's grid."""
        normals = relief.normals()
        lamp = (self.direction @ rotation).astype(np.float32)  # face frame
        viewer = rotation[2].astype(np.float32)
        facing = np.clip(normals @ lamp, 0, None)
        half = (lamp + viewer) / np.linalg.norm(lamp + viewer)
        gloss = np.clip(normals @ half, 0, None) ** 24 * np.float32(self.shine)
        hollow = cv2.GaussianBlur(relief.height, (0, 0), 5) - relief.height  # a hollow receives less of the even light
        open_sky = np.clip(1 - 1.4 * hollow, 0.5, 1.12)
        return np.asarray(self.even * open_sky + self.strength * facing, np.float32), np.asarray(gloss, np.float32)


def sample_light(rng: np.random.Generator) -> Light:
    """From soft daylight to a hard lamp at the side."""
    u = rng.random(4)
    direction = np.array([rng.normal(0, 0.6), rng.normal(-0.45, 0.45), 1.0 if u[0] < 0.85 else 0.15])
    strength = float(rng.uniform(0.15, 1.0))
    return Light(
        direction / np.linalg.norm(direction),
        float(1.08 - 0.85 * strength * rng.uniform(0.8, 1.0)),
        strength,
        0.3 * float(u[1]),
    )


def lit(texture: Image, factor: Map, gloss: Map) -> Image:
    """The texture under a light; the maps are resized to it."""
    n = texture.shape[0]
    f = cv2.resize(np.clip(factor * 128, 0, 255).astype(np.uint8), (n, n), interpolation=cv2.INTER_LINEAR)
    g = cv2.resize(np.clip(gloss * 255, 0, 255).astype(np.uint8), (n, n), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.add(cv2.multiply(texture, cv2.merge([f] * 3), scale=1 / 128), cv2.merge([g] * 3)), np.uint8)


def photograph(rng: np.random.Generator, image: Image, size: int) -> Image:
    """Average down to (size, size, 3); then exposure, colour cast, blur, lost resolution, noise, JPEG."""
    u = rng.random(8)
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    if u[0] < 0.3:  # uneven light over the whole image
        direction = rng.normal(0, 0.35, 2).astype(np.float32)
        row = np.linspace(-0.5, 0.5, size, dtype=np.float32)
        level = np.clip(128 * (1 + row[None] * direction[0] + row[:, None] * direction[1]), 0, 255).astype(np.uint8)
        small = cv2.multiply(small, cv2.merge([level] * 3), scale=1 / 128)
    ramp = np.arange(256) / 255
    level = float(small[size // 4 : -size // 4, size // 4 : -size // 4].mean())
    exposure = (rng.uniform(85, 150) / max(level, 20.0)) ** rng.uniform(0.3, 0.95)  # what a camera would set
    bent = ramp * exposure
    ramp = np.minimum(bent, 0.8) + 0.2 * np.tanh(np.maximum(bent - 0.8, 0) / 0.35)  # highlights roll off
    contrast, bright = rng.uniform(0.75, 1.4), rng.normal(0, 0.05)
    cast = np.exp(rng.normal(0, 0.07, 3) * (1.0, 0.4, 1.2))
    curve = np.clip((ramp[:, None] ** np.exp(rng.normal(0, 0.25)) - 0.5) * contrast + 0.5 + bright, 0, 1) * cast
    small = cv2.LUT(small, np.clip(curve * 255, 0, 255).astype(np.uint8)[None])
    if u[1] < 0.08:
        small = cv2.merge([cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)] * 3)
    elif u[1] < 0.6:
        grey = cv2.merge([cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)] * 3)
        share = float(rng.uniform(0.6, 1.7))
        small = cv2.addWeighted(small, share, grey, 1 - share, 0)
    if u[2] < 0.35:
        small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.4, 1.8)) * size / 160)
    elif u[2] < 0.42:
        n = max(3, int(rng.uniform(3, 9) * size / 160))
        kernel = np.zeros((n, n), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (n - 1) / 2
        cv2.line(kernel, fixed_ends(n, -reach), fixed_ends(n, reach), 1.0, 1)
        small = cv2.filter2D(small, -1, kernel / kernel.sum())
    if u[3] < 0.25:
        n = max(8, int(size / rng.uniform(1.2, 3.5)))
        less = cv2.resize(small, (n, n), interpolation=cv2.INTER_AREA)
        small = cv2.resize(less, (size, size), interpolation=cv2.INTER_LINEAR if u[4] < 0.6 else cv2.INTER_CUBIC)
    if u[5] < 0.6:
        noise = rng.standard_normal((size, size), np.float32) * np.float32(0.5 + 8 * rng.random() ** 2)
        small = np.clip(small + noise[..., None] + 0.5, 0, 255).astype(np.uint8)
    if u[6] < 0.6:
        ok, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))])
        if ok:
            small = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(small, np.uint8)


def fixed_ends(n: int, reach: Floats) -> tuple[int, int]:
    """One end of a motion streak in an n x n kernel."""
    return round((n - 1) / 2 + float(reach[0])), round((n - 1) / 2 + float(reach[1]))
