"""dlib's 68 landmarks of every image in a folder, for a Python that has dlib; it needs nothing of fewmark.

    python experiments/dlib_landmarks.py runs/still --model shape_predictor_68_face_landmarks.dat --out runs/dlib_still.csv

Each image is processed by itself: the box is the largest that dlib's HOG detector finds in the image at twice its size, as
dlib is commonly run. `--scale 3` enlarges the image three times instead, for both the detector and the landmarks. Writes
`file,x0,y0,...,x67,y67`, `file` relative to the folder, image px; dlib's landmarks are whole px of the image that it is given.
An image without a face has empty cells.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="images (.jpg), also in subfolders")
    parser.add_argument("--model", type=Path, required=True, help="dlib's shape_predictor_68_face_landmarks.dat")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=int, default=1, help="factor by which images are enlarged")
    arguments = parser.parse_args()
    import dlib

    find, place = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(arguments.model))
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *(f"{c}{i}" for i in range(68) for c in "xy")])
        for path in sorted(arguments.folder.rglob("*.jpg")):
            image, n = dlib.load_rgb_image(str(path)), arguments.scale
            if n > 1:
                image = dlib.resize_image(image, n * image.shape[0], n * image.shape[1])
            boxes = sorted(find(image, 1 if n == 1 else 0), key=lambda r: r.area())
            points = [v for p in place(image, boxes[-1]).parts() for v in (p.x, p.y)] if boxes else []
            # (0, 0) is the centre of the first pixel, of the large image as of the small one
            cells = [round((v + 0.5) / n - 0.5, 4) for v in points] or [""] * 136
            writer.writerow([path.relative_to(arguments.folder).as_posix(), *cells])


if __name__ == "__main__":
    main()
