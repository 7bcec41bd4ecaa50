"""CVAT for images 1.1: an XML file with a skeleton for each face, or single points that a group_id joins.

Positions count from the image's corner: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.data.formats.tools.named import (
    CORNER,
    NamedFace,
    Point,
    by_image,
    from_samples,
    number,
    structure_of,
    to_samples,
)
from fewmark.data.images import read_size
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme


def read_cvat(
    path: str | Path, *, n_landmarks: int | None = None, scheme: LandmarkScheme | None = None
) -> list[FaceSample]:
    """Read an export of CVAT for images.

    Args:
        path: The .xml file; images are looked for beside it.
        n_landmarks: Required number of names, or None for any.
        scheme: Its names are expected, and decide the order.

    Raises:
        InputError: The file is none of CVAT, or see `to_samples`.
    """
    path = Path(path)
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError, ValueError: of its encoding
        raise InputError(f"{path}: not an XML file ({error})") from error
    if root.tag != "annotations" or root.find("image") is None:
        raise InputError(f"{path}: expected CVAT's XML for images, <annotations><image name=...>, given <{root.tag}>")
    with structure_of(path, "CVAT"):
        faces = [face for image in root.iter("image") for face in _read_image(path, image)]
    return to_samples(path, faces, scheme, n_landmarks)


def is_cvat(path: Path) -> bool:
    """Whether an XML file is CVAT's."""
    try:
        for _, element in ElementTree.iterparse(path, events=("start",)):
            return bool(element.tag == "annotations")
    except (ElementTree.ParseError, LookupError, ValueError, OSError):
        pass
    return False


def _read_image(path: Path, image: ElementTree.Element) -> Iterator[NamedFace]:
    file = image.get("name", "")
    points: dict[str, dict[str, Point]] = {}
    occluded: dict[str, set[str]] = {}
    boxes: dict[str, tuple[float, float, float, float]] = {}
    for order, element in enumerate(image):
        group = element.get("group_id") or ""
        if element.tag == "box":
            x0, y0, x1, y1 = (
                number(path, f"{file}: box", element.get(k)) - CORNER for k in ("xtl", "ytl", "xbr", "ybr")
            )
            boxes[group] = x0, y0, x1, y1
            continue
        is_skeleton = element.tag == "skeleton"
        face = group or f"skeleton {order}" if is_skeleton else group
        for part in element.iter("points") if is_skeleton else [element] if element.tag == "points" else []:
            name = part.get("label", "")
            if part.get("outside") == "1":
                continue
            of = points.setdefault(face, {})
            if name in of:
                raise InputError(
                    f"{path}: {file}: {name!r} stands twice; join the points of each face by a group or a skeleton"
                )
            x, _, y = (part.get("points") or "").partition(";")[0].partition(",")
            of[name] = number(path, f"{file}: {name}", x) - CORNER, number(path, f"{file}: {name}", y) - CORNER
            if part.get("occluded") == "1":
                occluded.setdefault(face, set()).add(name)
    faces = list(dict.fromkeys([*points, *boxes]))
    for face in faces:
        yield NamedFace(file, points.get(face, {}), frozenset(occluded.get(face, ())), boxes.get(face))
    if not faces:
        yield NamedFace(file, {})


def write_cvat(path: str | Path, samples: Sequence[FaceSample], scheme: LandmarkScheme | None) -> None:
    """Write skeletons, with boxes beside them where faces have one; missing landmarks are outside.

    Raises:
        InputError: See `from_samples`; or an image cannot be read.
    """
    path = Path(path)
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for order, (file, faces) in enumerate(by_image(from_samples(path, samples, scheme)).items()):
        width, height = read_size(path.parent / file)
        image = ElementTree.SubElement(
            root, "image", {"id": str(order), "name": file, "width": str(width), "height": str(height)}
        )
        for group, face in enumerate(faces, 1):
            shared = {"label": "face", "source": "manual", "occluded": "0", "z_order": "0", "group_id": str(group)}
            if face.box is not None:
                sides = {k: f"{v + CORNER:.4f}" for k, v in zip(("xtl", "ytl", "xbr", "ybr"), face.box, strict=True)}
                ElementTree.SubElement(image, "box", shared | sides)
            if not face.points:
                continue
            skeleton = ElementTree.SubElement(image, "skeleton", shared)
            for name in scheme.landmarks if scheme is not None else face.points:
                x, y = face.points.get(name, (-CORNER, -CORNER))
                ElementTree.SubElement(
                    skeleton,
                    "points",
                    {
                        "label": name,
                        "outside": str(int(name not in face.points)),
                        "occluded": str(int(name in face.occluded)),
                        "points": f"{x + CORNER:.4f},{y + CORNER:.4f}",
                    },
                )
    ElementTree.indent(root)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
