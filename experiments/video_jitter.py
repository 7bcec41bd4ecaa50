"""Jitter of landmarks on a still face and lag on a moving one: fewmark and dlib.

    python experiments/video_jitter.py --data ../shared/data/talking_face_video --write-stills runs/still
    python experiments/dlib_landmarks.py runs/still --model shape_predictor_68_face_landmarks.dat --out runs/dlib_still.csv
    python experiments/dlib_landmarks.py runs/still --model shape_predictor_68_face_landmarks.dat --scale 3 --out runs/dlib_still_3.csv
    python experiments/video_jitter.py --data ../shared/data/talking_face_video --stills runs/still --dlib runs/dlib_still.csv \
        --dlib-enlarged runs/dlib_still_3.csv --out docs/measured/video_jitter.json --plot docs/images/video_jitter.png

dlib_landmarks.py runs in a Python that has dlib, which fewmark does not need. Still faces: four frames of the clips, each repeated
60 times with new noise (standard deviation 3 of 255) and JPEG compression (quality 90); nothing in them moves, so all motion of the
landmarks is jitter. Clips: jitter in the windows in which the face is still, the same windows for all methods; lag behind the
same track's raw landmarks in moving frames, and behind their mean over five frames centred on each, in which noise
hides no lag. dlib's landmarks of the clips come with the data (`dlib_pseudo_68pt.csv`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measurement import load_pyplot, make_parser, markdown_table, percent, save_figure, write_json
from numpy.typing import NDArray

from fewmark.core.geometry import box_centre, face_sizes
from fewmark.video.metrics import jitter, lag, moving_frames, still_windows
from fewmark.video.reader import read_video

CLIPS = ("cap12", "franck")
N_STILL, NOISE, QUALITY = 60, 3.0, 90
METHODS = {
    "dlib": "dlib, each frame by itself",
    "dlib-enlarged": "dlib, image 3 times as large",
    "single": "fewmark, each frame by itself",
    "tracked": "fewmark, tracked, not smoothed",
    "smoothed": "fewmark, tracked and smoothed",
}
PLOTTED = ("cap12", 36, (150, 225))
"""Clip, landmark (an outer eye corner) and frames of the plot."""

Trajectory = NDArray[np.float64]


def main() -> None:
    parser = make_parser(__doc__, data="the talking_face_video folder")
    parser.add_argument("--write-stills", type=Path, help="write the still faces to this folder and exit")
    parser.add_argument("--stills", type=Path, help="folder of the still faces")
    parser.add_argument("--dlib", type=Path, help="dlib's landmarks of the still faces, by dlib_landmarks.py")
    parser.add_argument("--dlib-enlarged", type=Path, help="the same with --scale 3")
    parser.add_argument("--model", default="ibug-68")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="a .png file")
    arguments = parser.parse_args()
    if arguments.write_stills:
        write_stills(arguments.data, arguments.write_stills)
        return
    if not (arguments.stills and arguments.dlib and arguments.dlib_enlarged and arguments.out):
        parser.error("--stills, --dlib, --dlib-enlarged and --out are needed to measure")
    from fewmark.inference.detector import Detector

    detector = Detector.load(arguments.model, threads=arguments.threads)
    stills = []
    for folder in sorted(p for p in arguments.stills.iterdir() if p.is_dir()):
        found = run(detector, folder)
        found["dlib"] = read_dlib(arguments.dlib, folder.name)
        found["dlib-enlarged"] = read_dlib(arguments.dlib_enlarged, folder.name)
        stills.append({"scene": folder.name, **{m: measured(jitter(x, still=None)) for m, x in found.items()}})
        print(stills[-1], flush=True)
    clips = []
    for clip in CLIPS:
        found = run(detector, arguments.data / clip)
        found["dlib"] = read_dlib(arguments.data / "dlib_pseudo_68pt.csv", clip)
        clips.append(measure_clip(clip, found))
        print(clips[-1], flush=True)
        if arguments.plot and clip == PLOTTED[0]:
            plot(arguments.plot, found)
    data = {"model": arguments.model, "n_still_frames": N_STILL, "stills": stills, "clips": clips}
    write_json(arguments.out, data)
    print(as_table(data))


def write_stills(data: Path, folder: Path) -> None:
    """Write the frames at one and three quarters of each clip, repeated with noise."""
    for seed, (clip, share) in enumerate((c, s) for c in CLIPS for s in (0.25, 0.75)):
        frames = [f.image for f in read_video(data / clip)]
        index = int(share * len(frames))
        rng = np.random.default_rng(seed)
        for i in range(N_STILL):
            noisy = np.clip(np.rint(frames[index] + rng.normal(0, NOISE, frames[index].shape)), 0, 255).astype(np.uint8)
            path = folder / f"{clip}-{index:04d}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def run(detector: Any, folder: Path) -> dict[str, Trajectory]:
    """Landmarks (T, 68, 2) px of the main face by each method, and "raw", the input of "smoothed"."""
    from fewmark.video.tracker import Tracker

    plain, smooth = Tracker(detector, smoothing=None, max_faces=1), Tracker(detector, max_faces=1)
    found: dict[str, list[NDArray[np.float32]]] = {"single": [], "tracked": [], "smoothed": [], "raw": []}
    missing = np.full((detector.scheme.n_landmarks, 2), np.nan, np.float32)
    for frame in read_video(folder):
        faces = detector.detect(frame.image)
        middle = (np.array(frame.image.shape[1::-1]) - 1) / 2 if not found["tracked"] else found["tracked"][-1].mean(0)
        faces.sort(key=lambda f: float(np.linalg.norm(box_centre(f.box) - middle)))
        found["single"].append(faces[0].landmarks if faces else missing)
        (tracked,) = plain(frame.image, frame.time_s) or [None]
        found["tracked"].append(missing if tracked is None else tracked.landmarks)
        (face,) = smooth(frame.image, frame.time_s) or [None]
        found["smoothed"].append(missing if face is None else face.landmarks)
        found["raw"].append(missing if face is None else face.raw_landmarks)
    print(f"{folder.name}: {plain.n_tracks} and {smooth.n_tracks} tracks", flush=True)
    return {name: np.stack(points).astype(np.float64) for name, points in found.items()}


def read_dlib(path: Path, group: str) -> Trajectory:
    """(T, 68, 2) px of the images in the folder `group`, sorted by name; NaN where dlib found no face."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = sorted((r for r in csv.DictReader(file) if r["file"].startswith(f"{group}/")), key=lambda r: r["file"])
    if not rows:
        raise SystemExit(f"{path}: no row whose file begins with {group}/")
    cells = [[float(r[f"{c}{i}"] or "nan") for i in range(68) for c in "xy"] for r in rows]
    return np.array(cells).reshape(-1, 68, 2)


def measure_clip(clip: str, found: Mapping[str, Trajectory]) -> dict[str, Any]:
    """Jitter of each method in the still windows of the tracked landmarks, and the lag of smoothing."""
    windows, moving = still_windows(found["tracked"]), moving_frames(found["raw"])
    raw = found["raw"]
    centred = raw.copy()
    centred[2:-2] = np.mean([raw[i : len(raw) - 4 + i] for i in range(5)], axis=0)
    return {
        "clip": clip,
        "n_frames": len(raw),
        "face_px": round(float(np.nanmean(face_sizes(raw))), 1),
        "n_still_windows": int(windows.sum()),
        "n_moving_frames": int(moving.sum()),
        "jitter": {m: measured(jitter(found[m], windows=windows)) for m in METHODS if m in found},
        "lag_frames": measured(lag(found["smoothed"], raw, frames=moving)),
        "lag_frames_centred": measured(lag(found["smoothed"], centred, frames=moving)),
    }


def measured(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def as_table(data: Mapping[str, Any]) -> str:
    """A Markdown table: jitter in % of the face's size on the still faces and in the clips' still windows, and lag in frames."""
    clips: Sequence[Mapping[str, Any]] = data["clips"]
    names = [f"{c['clip']}, {c['n_still_windows']} still windows" for c in clips]
    table = []
    for method, title in METHODS.items():
        values = [s[method] for s in data["stills"] if s.get(method) is not None]
        still = percent(float(np.mean(values)) if values else None)
        moving = [percent(c["jitter"].get(method)) for c in clips]
        lags = " and ".join(f"{max(c['lag_frames'], c['lag_frames_centred']):.2f}" for c in clips)
        table.append([title, still, *moving, lags if method == "smoothed" else "0"])
    return markdown_table(["", "still face", *names, "lag, frames"], table)


def plot(path: Path, found: Mapping[str, Trajectory]) -> None:
    """Draw x of one landmark over some frames."""
    clip, landmark, (first, last) = PLOTTED
    frames = np.arange(first, last)
    figure, axes = load_pyplot().subplots(figsize=(8, 3.6), dpi=110)
    styles = {
        "dlib": ("#9aa0a6", 1.0, "dlib"),
        "raw": ("#ff8a3d", 1.0, "raw"),
        "smoothed": ("#1f6feb", 1.8, "smoothed"),
    }
    for name, (colour, width, label) in styles.items():
        axes.plot(frames, found[name][first:last, landmark, 0], color=colour, lw=width, label=label)
    axes.set_xlabel("frame")
    axes.set_ylabel("x, px")
    axes.set_title(f"{clip}: landmark {landmark}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
