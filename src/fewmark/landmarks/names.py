"""Landmarks and components of a scheme by their names, and by those of other libraries."""

from __future__ import annotations

import re

from fewmark.core.errors import InputError
from fewmark.landmarks.scheme import LandmarkScheme

_SUBJECT = "subject_"
_OTHER_NAMES = {"jaw": "contour", "face_oval": "contour", "lips": "mouth"}
"""Names of imutils and MediaPipe -> component."""
_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])")


def find_landmarks(scheme: LandmarkScheme, name: str) -> int | tuple[int, ...]:
    """The index of a landmark, or the indices of a component.

    Left and right are the image's, as in all packaged schemes. After "subject_" they are the person's, as in dlib, imutils and
    MediaPipe: the other side of an image that is not mirrored. "jaw" and "face_oval" are the contour, "lips" is the mouth.

    Raises:
        InputError: The scheme has no such name.

    >>> from fewmark.landmarks.scheme import load_scheme
    >>> scheme = load_scheme("ibug-68")
    >>> find_landmarks(scheme, "left_eye"), find_landmarks(scheme, "nose_tip")
    ((36, 37, 38, 39, 40, 41), 30)
    >>> find_landmarks(scheme, "subject_left_eye")
    (42, 43, 44, 45, 46, 47)
    """
    for known in (name, _OTHER_NAMES.get(name, name), _of_image(name)):
        if known in scheme.components:
            return scheme.components[known]
        if known in scheme.landmarks:
            return scheme.landmarks.index(known)
    import difflib

    names = [*scheme.components, *scheme.landmarks]
    near = difflib.get_close_matches(name, names, n=1)
    advice = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"scheme {scheme.name} has no component or landmark {name!r}; {advice}Its components are {', '.join(scheme.components) or 'none'}; "
        "its landmarks are in `scheme.landmarks`"
    )


def _of_image(name: str) -> str:
    """The image's name of what is named by the person's sides."""
    if not name.startswith(_SUBJECT):
        return name
    return _SIDE.sub(lambda side: "right" if side[0] == "left" else "left", name.removeprefix(_SUBJECT))
