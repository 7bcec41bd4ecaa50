"""The NME that each decoding would leave a perfect network: ideal heatmaps of random landmarks, decoded.

    python experiments/codec_floor.py --json codec_floor.json

The crop is 64 px and the outer eye corners are 26 px apart, as in TS3. The landmarks are uniformly distributed over
the middle 45 px of the crop, where a face box with a margin of 0.2 lies. "8 and 4, maps" are
Eq. 5's averaged maps of two strides; "8 and 4, points" is the mean of the landmarks decoded at each stride. "Noise" adds Gaussian noise
to every cell, as the maps of a network have.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch
from measurement import make_parser, markdown_table, percent, write_json
from torch import Tensor

from fewmark.models.codec import Decoding, HeatmapCodec, average_heatmaps

SIZE = 64
EYE_DISTANCE = 26.0
"""Distance of the outer eye corners in a crop of 64 px, in px (25.2 on average, 20.8 to 29.1)."""
INSIDE = (9.0, 54.0)
NOISE = 0.02
"""Standard deviation of the noise in the rows so named; a map's peak is 1."""
STRIDES = (2, 4, 8)
SIGMAS = (3.0, 4.0)
UNLIKE = (8, 4)
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)

Floors = dict[str, dict[str, dict[str, float]]]
"""Stride or mean of strides -> sigma -> decoding -> NME, a fraction."""


def draw_landmarks(n: int, seed: int) -> Tensor:
    """(1, n, 2) crop px."""
    generator = torch.Generator().manual_seed(seed)
    low, high = INSIDE
    return low + (high - low) * torch.rand(1, n, 2, generator=generator)


def ideal_maps(landmarks: Tensor, codec: HeatmapCodec, cut_off: float) -> Tensor:
    """(1, n, h, w) heatmaps; values below `cut_off` are 0."""
    maps, _ = codec.encode(landmarks, (SIZE, SIZE))
    return maps * (maps >= cut_off)


def measure(n: int = 5000, seed: int = 0, cut_off: float = 0.0) -> Floors:
    """The floors of all strides, of the averaged maps and of the averaged points."""
    truth = draw_landmarks(n, seed)

    def nme(points: Tensor) -> float:
        return float((points - truth).norm(dim=-1).mean()) / EYE_DISTANCE

    floors: Floors = {}
    name = " and ".join(map(str, UNLIKE))
    for sigma in SIGMAS:
        maps = {s: ideal_maps(truth, HeatmapCodec(s, sigma), cut_off) for s in STRIDES}
        average = average_heatmaps([maps[s] for s in UNLIKE])
        for decoding in DECODINGS:
            codecs = {s: HeatmapCodec(s, sigma, decoding=decoding) for s in STRIDES}
            points = {str(s): codecs[s].decode(maps[s])[0] for s in STRIDES}
            points[f"{name}, maps"] = codecs[min(UNLIKE)].decode(average)[0]
            points[f"{name}, points"] = torch.stack([points[str(s)] for s in UNLIKE]).mean(0)
            for s in UNLIKE:
                noise = NOISE * torch.randn(maps[s].shape, generator=torch.Generator().manual_seed(seed))
                points[f"{s}, noise"] = codecs[s].decode(maps[s] + noise)[0]
            for what, found in points.items():
                floors.setdefault(what, {}).setdefault(f"{sigma:g}", {})[decoding] = nme(found)
    return floors


def as_table(floors: Floors) -> str:
    """A Markdown table, NME in % of the outer eye corners' distance."""
    rows = [
        [stride, sigma, *(percent(found[d], unit="") for d in DECODINGS)]
        for stride, by_sigma in floors.items()
        for sigma, found in by_sigma.items()
    ]
    return markdown_table(["stride", "sigma, px", *DECODINGS], rows)


def main() -> None:
    parser = make_parser(__doc__, data="")
    parser.add_argument("--n", type=int, default=5000, help="number of landmarks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the landmarks")
    parser.add_argument("--cut-off", type=float, default=0.0, help="heatmap values below it are 0 (the authors' 0.01)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the floors, fractions, as JSON")
    arguments = parser.parse_args()
    floors = measure(arguments.n, arguments.seed, arguments.cut_off)
    print(as_table(floors))
    if arguments.json is not None:
        settings = {"n": arguments.n, "seed": arguments.seed, "cut_off": arguments.cut_off}
        write_json(arguments.json, {**settings, "nme": floors})


if __name__ == "__main__":
    main()
