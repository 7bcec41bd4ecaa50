"""Appearance of a synthetic person apart from shape: colours, age, facial hair, make-up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewmark.core.geometry import Floats

_SKINS = np.array(
    [
        (236, 198, 178),
        (228, 182, 154),
        (208, 158, 125),
        (184, 132, 97),
        (148, 100, 70),
        (108, 71, 50),
        (74, 49, 37),
    ],
    np.float64,
)
_HAIRS = np.array(
    [
        *((22, 18, 17), (45, 32, 25), (78, 54, 38), (120, 84, 54), (190, 155, 105)),
        *((228, 200, 150), (140, 66, 35), (150, 148, 146), (225, 223, 220)),
    ],
    np.float64,
)
_HAIR_SHARES = np.array([0.27, 0.24, 0.16, 0.08, 0.06, 0.03, 0.04, 0.07, 0.05])
_IRISES = np.array(
    [(60, 38, 25), (95, 62, 35), (120, 95, 55), (90, 110, 80), (80, 115, 150), (120, 140, 155)], np.float64
)
_IRIS_SHARES = np.array([0.45, 0.2, 0.1, 0.08, 0.12, 0.05])


@dataclass(frozen=True, eq=False)
class Appearance:
    """Appearance of a person apart from shape. Colours are (3,) RGB 0..255.

    Attributes:
        age: 0 smooth to 1 deeply lined.
        brow_width: face units.
        beard: 0 none, below 0.4 stubble, up to 1 full.
        moustache: the same.
        lashes: 0 to 1, and make-up goes with it.
        eyeshadow: its strength, 0 to 1.
        crease: height of the lid's fold over the eye, face units; 0 = none.
        gaze: (2,) shift of the irises, face units.
    """

    skin: Floats
    hair: Floats
    brow: Floats
    lip: Floats
    iris: Floats
    teeth: Floats
    age: float
    redness: float
    brow_width: float
    brow_density: float
    beard: float
    moustache: float
    lashes: float
    eyeshadow: float
    shadow_colour: Floats
    crease: float
    gaze: Floats


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Draw a random person from the full range of human appearance."""
    u = rng.random(24)
    tone = u[0] ** 1.25 * (len(_SKINS) - 1)
    skin = np.array([np.interp(tone, np.arange(len(_SKINS)), _SKINS[:, c]) for c in range(3)])
    skin = np.clip(skin * (1 + 0.05 * rng.standard_normal(3) * (0.6, 0.8, 1.2)), 20, 252)
    dark = tone > 3.5
    shares = _HAIR_SHARES * (np.arange(9) < 3) + 0.01 if dark else _HAIR_SHARES
    hair = _HAIRS[rng.choice(9, p=shares / shares.sum())] * rng.uniform(0.75, 1.2)
    if u[1] < 0.03:
        hair = rng.uniform(30, 220, 3)
    brow = np.minimum(hair * rng.uniform(0.55, 1.0), skin * 0.72)
    woman = u[2] < 0.5
    lip = skin * np.array([0.92, 0.68, 0.68]) + (8, 0, 2)
    if woman and u[3] < 0.55:  # lipstick
        colour = np.array([rng.uniform(130, 225), rng.uniform(25, 110), rng.uniform(40, 125)])
        lip = lip + (colour - lip) * rng.uniform(0.3, 0.95)
    iris = _IRISES[0] if dark else _IRISES[rng.choice(6, p=_IRIS_SHARES)]
    beard = 0.0 if woman or u[4] < 0.45 else float(rng.uniform(0.08, 1.0))
    moustache = beard * rng.uniform(0.6, 1.0) if u[5] < 0.8 else 0.0
    if not woman and u[6] < 0.07:
        moustache = float(rng.uniform(0.4, 1))
    return Appearance(
        skin=skin,
        hair=np.clip(hair, 8, 250),
        brow=brow,
        lip=np.clip(lip, 15, 245),
        iris=iris * rng.uniform(0.75, 1.25),
        teeth=np.array([238, 232, 218]) * rng.uniform(0.8, 1.02),
        age=float(u[7] ** 1.6),
        redness=float(rng.uniform(0.0, 0.16)),
        brow_width=float(rng.uniform(0.06, 0.15) * (0.8 if woman else 1.1)),
        brow_density=float(rng.uniform(0.2, 1.0)),
        beard=beard,
        moustache=float(moustache),
        lashes=float(rng.uniform(0.4, 1) if woman else 0.35 * u[8]),
        eyeshadow=float(rng.uniform(0.1, 0.6)) if woman and u[9] < 0.4 else 0.0,
        shadow_colour=rng.uniform(20, 150, 3),
        crease=0.0 if u[10] < 0.2 else float(rng.uniform(0.03, 0.09)),
        gaze=rng.normal(0, 1, 2) * (0.035, 0.012),
    )
