"""The process of one contender, which peers.py controls line by line; it needs the contender's packages and no fewmark.

Its argument is JSON: contender, given, threads, folder (the faces, as peers.py writes them), landmarks (file to write
them to, or null). Lines in: "warm" (all faces once; writes the landmarks), "single" (milliseconds of each face, one at a time),
"batch" (seconds of each chunk of faces in the contender's fastest way). Lines out: one of JSON for each, and one at the start.
"""

import json
import os
import resource
import sys
import time

CHUNK = 32
"""Faces in memory at a time in batches."""


def peak_mb() -> float:
    """Peak memory of this process in 10^6 bytes.

    On Linux the peak of `getrusage` is inherited from the parent process; VmHWM is this process's own.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    bare_mb = peak_mb()  # before any import of NumPy
    order = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stderr, so that stdout holds answers alone

    def answer(**data: object) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    try:
        import numpy as np
        from peer_contenders import CONTENDERS, MissingError
    except ImportError as error:
        answer(missing=f"pip install numpy ({error})")
        return
    try:
        contender = CONTENDERS[order["contender"]](order["threads"], order["given"])
    except MissingError as error:
        answer(missing=str(error))
        return
    answer(
        bare_mb=bare_mb,
        n_points=contender.n_points,
        model_mb=sum(f.stat().st_size for f in contender.files) / 1e6,
        note=contender.note,
        flips=getattr(contender, "flips", False),
        has_many=contender.has_many,
        versions=contender.versions(),
    )
    folder = order["folder"]
    with open(os.path.join(folder, "faces.json"), encoding="utf-8") as file:
        faces = [(number, np.array(box, np.float32)) for number, box in json.load(file)]

    def read(number: int) -> "np.ndarray":
        return np.load(os.path.join(folder, f"{number}.npy"))

    for line in sys.stdin:
        request = line.strip()
        if request == "warm":
            found = [contender(read(number), box) for number, box in faces]
            if order["landmarks"]:
                nothing = np.full(next((p.shape for p in found if p is not None), (68, 2)), np.nan)
                np.save(order["landmarks"], np.stack([nothing if p is None else p for p in found]))
            answer(peak_mb=peak_mb())
        elif request == "single":
            contender(read(faces[0][0]), faces[0][1])  # warms the processor's caches again after the other contenders
            times = []
            for number, box in faces:
                image = read(number)
                began = time.perf_counter()
                contender(image, box)
                times.append(1000 * (time.perf_counter() - began))
            answer(ms=times, peak_mb=peak_mb())
        elif request == "batch":
            seconds = []
            for start in range(0, len(faces), CHUNK):
                images = [read(number) for number, _ in faces[start : start + CHUNK]]
                boxes = [box for _, box in faces[start : start + CHUNK]]
                if start == 0:
                    contender.many(images, boxes)
                began = time.perf_counter()
                contender.many(images, boxes)
                seconds.append(time.perf_counter() - began)
            answer(seconds=seconds, peak_mb=peak_mb())


if __name__ == "__main__":
    main()
