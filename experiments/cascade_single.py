"""The coarse stage of the recipe `cascade` as a single network, without its twin; Fig. 4 of the coarse-to-fine paper.

    python experiments/cascade_single.py --data ../shared/data/ibug68 --labelled runs/lists-ibug68/labelled.txt \
        --val runs/lists-ibug68/held_out.txt --out runs/single-0

`--twin` trains the twins in the same way. `--set KEY=VALUE` changes a setting, as in `fewmark train`.
"""

from __future__ import annotations

from pathlib import Path

from measurement import make_parser

from fewmark import TrainingData, train
from fewmark.data.lists import read_training_lists
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.cascade.run import CascadeOptions
from fewmark.training.config import load_config
from fewmark.training.events import Event


def show(event: Event) -> None:
    if event["kind"] == "stage":
        print(event, flush=True)


def main() -> None:
    parser = make_parser(__doc__, data="labelled faces")
    parser.add_argument("--labelled", type=Path, required=True, help="list of the training faces")
    parser.add_argument("--val", type=Path, required=True, help="list of the faces to measure")
    parser.add_argument("--scheme", default="ibug-68")
    parser.add_argument("--out", type=Path, required=True, help="a run folder")
    parser.add_argument("--twin", action="store_true", help="train the twins")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    arguments = parser.parse_args()
    scheme = load_scheme(arguments.scheme)
    lists = read_training_lists(arguments.data, arguments.labelled, [], arguments.val, scheme=scheme)
    data = TrainingData(scheme, lists.labelled, [], lists.validation)
    config = load_config("cascade", ["cascade.stages=['coarse']", *arguments.set])
    options = CascadeOptions(twin=arguments.twin)
    print(train(config, data, arguments.out, on_event=show, cascade_options=options).scores)


if __name__ == "__main__":
    main()
