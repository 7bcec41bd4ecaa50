"""Colours of landmarks, by facial component."""

from __future__ import annotations

from collections.abc import Sequence

from fewmark.landmarks.scheme import LandmarkScheme

RGB = tuple[int, int, int]

BRIGHT: Sequence[RGB] = (
    (64, 224, 208),  # turquoise
    (255, 196, 61),  # amber
    (94, 182, 255),  # sky
    (196, 148, 255),  # lilac
    (255, 111, 125),  # coral
    (150, 222, 98),  # leaf
)
"""Palette for photographs: visible on skin and on shadow."""
DARK: Sequence[RGB] = (
    (70, 70, 70),  # grey
    (200, 80, 0),  # orange
    (0, 90, 200),  # blue
    (190, 20, 50),  # red
    (110, 110, 0),  # olive
    (0, 130, 100),  # green
)
"""Palette for white paper."""

_INDEX_OF_WORD = {"contour": 0, "jaw": 0, "brow": 1, "eye": 2, "pupil": 2, "nose": 3, "mouth": 4, "lip": 4}


def landmark_colours(scheme: LandmarkScheme, palette: Sequence[RGB] = BRIGHT) -> list[RGB]:
    """One colour per landmark, that of its component; landmarks without a component get the first."""
    colours = [palette[0]] * scheme.n_landmarks
    for order, (name, indices) in enumerate(scheme.components.items()):
        # "eyebrow" contains both words, so "brow" comes before "eye"
        index = next((i for word, i in _INDEX_OF_WORD.items() if word in name), order % len(palette))
        for i in indices:
            colours[i] = palette[index]
    return colours
