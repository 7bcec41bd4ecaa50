"""The lists of the cascade's experiments: faces to train on, held-out faces and test faces.

    python experiments/cascade_lists.py --data ../shared/data/ibug68 --scheme ibug-68 --out runs/lists-ibug68
    python experiments/cascade_lists.py --data ../shared/data/scut86 --scheme scut-86 --out runs/lists-scut86

ibug68 has its own train.txt and test lists; every fifth face of scut86 is a test face. Every 15th training face is held out.
Writes labelled.txt, held_out.txt and test_NAME.txt (ibug68: common, challenging and full).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from measurement import TESTS, make_parser

from fewmark.core.files import write_text
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import read_list
from fewmark.landmarks.scheme import load_scheme

HELD_OUT_EVERY = 15
TEST_EVERY = 5


def main() -> None:
    parser = make_parser(__doc__, data="the ibug68 or the scut86 folder")
    parser.add_argument("--scheme", required=True, help="scheme of the data: ibug-68 or scut-86")
    parser.add_argument("--out", type=Path, required=True, help="folder of the lists")
    arguments = parser.parse_args()
    data: Path = arguments.data
    if (data / "train.txt").is_file():
        train = read_list(data / "train.txt")
        tests = {n: read_list(data / f"test_{n}.txt") for n in TESTS}
        tests["full"] = [name for names in tests.values() for name in names]
    else:
        names = [s.name for s in read_faces(data, scheme=load_scheme(arguments.scheme))]
        train = [n for i, n in enumerate(names) if i % TEST_EVERY]
        tests = {"full": names[::TEST_EVERY]}
    lists: dict[str, Sequence[str]] = {
        "labelled": [n for i, n in enumerate(train) if i % HELD_OUT_EVERY],
        "held_out": train[::HELD_OUT_EVERY],
        **{f"test_{name}": names for name, names in tests.items()},
    }
    for name, names in lists.items():
        write_text(arguments.out / f"{name}.txt", "\n".join(names) + "\n")
        print(f"{arguments.out / name}.txt: {len(names)} faces")


if __name__ == "__main__":
    main()
