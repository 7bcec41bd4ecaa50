"""Draw the README's image: a photograph, and the landmarks that the packaged model finds in it.

python docs/readme_image.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from matplotlib.cbook import get_sample_data

from fewmark.data.images import read_image, write_image
from fewmark.inference.detector import Detector
from fewmark.visualization.draw import draw_landmarks

X0, Y0, X1, Y1 = 130, 65, 390, 365
"""The part of the photograph that is shown, px."""


def main() -> None:
    image = read_image(get_sample_data("grace_hopper.jpg", asfileobj=False))[Y0:Y1, X0:X1]
    image = np.asarray(cv2.resize(image, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC), np.uint8)
    detector = Detector.load("ibug-68")
    found = draw_landmarks(image, detector.detect(image), detector.scheme)
    gap = np.full((len(image), 8, 3), 255, np.uint8)
    write_image(Path(__file__).parent / "images/grace_hopper.png", np.hstack([image, gap, found]))


if __name__ == "__main__":
    main()
