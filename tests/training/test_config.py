"""Settings: every recipe loads, what is written is read back, what is wrong is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fewmark.core.errors import InputError
from fewmark.training import old_settings
from fewmark.training.config import describe_settings, load_config, recipe_names, to_toml
from fewmark.training.distillation import QUALITY_NETWORK
from fewmark.training.semi.plans import (
    TEACHER_KINDS,
    check_students,
    make_loop,
    planned_rounds,
    student_plans,
    teacher_plan,
)
from fewmark.training.semi.teacher import TeacherPlan

OLD_RECIPES = Path(__file__).with_name("old_recipes")
"""Recipes and the tests' tiny one as they were when there were 60 settings."""


def test_there_are_at_most_60_settings_each_with_a_meaning() -> None:
    settings = describe_settings()
    assert 40 < len(settings) <= 60
    assert len({s.name for s in settings}) == len(settings)
    for s in settings:
        assert s.description.endswith("."), s.name
        assert s.type, s.name
    defaults = {s.name: s.default for s in settings}
    assert defaults["semi.ratio"] == 0.1
    assert defaults["students.NAME.milestones"] == []


def test_the_recipes_that_are_promised_are_there() -> None:
    assert {"laptop", "paper"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_builds(name: str) -> None:
    config = load_config(name)
    for plan in student_plans(config):
        module = replace(plan, weights="random").build(68, 0)  # ImageNet's are a package of their own
        assert module.stride == plan.codec.stride
    assert make_loop(config, 10, 90).n_rounds == config.semi.rounds


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "examples").glob("*.toml")))
def test_every_example_recipe_loads(file: Path) -> None:
    assert student_plans(load_config(file))


@pytest.mark.parametrize("name", recipe_names())
def test_written_settings_are_read_back(name: str, tmp_path: Path) -> None:
    config = load_config(name, ["run.seed=7", "model.provenance=a 'b' \"c\""])
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    assert load_config(file) == config


def test_the_paper_recipe_is_the_papers() -> None:
    config = load_config("paper")
    assert (config.crop.size, config.semi.rounds, config.semi.ratio, config.semi.restart) == (
        64,
        6,
        0.1,
        True,
    )
    assert (config.students["cpm"].n_epochs, config.students["cpm"].learning_rate) == (50, 5e-5)
    assert (config.students["hourglass"].n_epochs, config.students["hourglass"].learning_rate) == (
        110,
        2.5e-4,
    )


def test_order_is_recipe_then_file_then_set(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "laptop"\n[semi]\nratio = 0.11\nviews = 3\n', encoding="utf-8")
    config = load_config(file, ["semi.views=5"])
    assert (config.semi.ratio, config.semi.views) == (0.11, 5)
    assert config.semi.rounds == load_config("laptop").semi.rounds
    assert set(config.students) == set(load_config("laptop").students)


def test_no_rounds_train_as_long_as_the_rounds_would() -> None:
    config = load_config("laptop", ["semi.selection=none"])
    loop = make_loop(config, 10, 90)
    assert loop.n_rounds == 0
    assert [loop.first_length_of(j) for j in range(2)] == [
        config.semi.first_length + config.semi.rounds + config.semi.last_length
    ] * 2


def test_no_rounds_train_as_long_where_an_epoch_is_one_pass() -> None:
    """Recipe paper: a round's epochs are longer than those on labels alone; the labels get as many steps."""
    rounds, alone = load_config("paper"), load_config("paper", ["semi.selection=none"])
    for name in rounds.students:
        steps = [
            sum(t.n_steps for t in planned_rounds(c, 107, 964) if t.part == name and "fold" not in t.name)
            for c in (rounds, alone)
        ]
        assert steps[1] == pytest.approx(steps[0], rel=0.01)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("semi.ratoi=0.2", ["semi.ratoi", "no such setting; did you mean semi.ratio?"]),
        ("students.a.codec.sgma=2", ["did you mean students.a.codec.sigma?"]),
        ("smi.ratio=0.2", ["did you mean semi?"]),
        ("run.ratio=0.2", ["did you mean semi.ratio or distillation.ratio?"]),
        ("zzz=1", ["no such setting; fewmark train --list-settings lists all"]),
        ("semi.ratio=2", ["semi.ratio", "less than or equal to 1", "2"]),
        ("semi.selection=best", ["semi.selection", "'best'"]),
        ("semi.ratio", ["--set", "section.key=value"]),
        ("semi.ratio.x=1", ["--set", "a value, not a section"]),
        ("students.unet.codec.stride=8", ["students.unet.codec.stride", "follows from the network", "expected 4", "8"]),
        ("students.unet.codec.logits=false", ["students.unet.codec.logits", "follows from the loss"]),
        ("students.unet.clip_norm=1.0", ["students.unet.clip_norm", "follows from the optimizer"]),
        ("cascade.apart=true", ["cascade.apart", "separate_contour", "train_cascade"]),
        ("teacher.width=8", ["teacher: width = 8", "teacher.kind", "peaks, patchgan"]),
        ("distillation.selection=spaco", ["distillation.selection", "'spaco'"]),
    ],
)
def test_bad_settings_are_refused_in_one_line(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        load_config("laptop-64", [override])
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_only_mobilenet_begins_with_imagenet() -> None:
    with pytest.raises(InputError, match=r"weights: expected .random. for compact"):
        student_plans(load_config("adapt", ["students.compact.weights=imagenet"]))


def test_a_run_is_refused_before_it_starts_where_the_weights_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewmark.models.mobilenet_v2.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed"):
        check_students(load_config("drawn-imagenet"))


def test_bad_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file, and packaged are .*laptop"):
        load_config("labtop")
    broken = tmp_path / "broken.toml"
    broken.write_text("[semi\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.toml: not a TOML file"):
        load_config(broken)


@pytest.mark.parametrize("name", ["cascade", "laptop-64", "paper", "strong-96"])
def test_old_recipes_mean_what_they_meant(name: str) -> None:
    since = ["students.cpm.codec.sigma=4.0"] if name == "paper" else []
    assert load_config(OLD_RECIPES / f"{name}.toml", since) == load_config(name)


@pytest.mark.parametrize("name", ["compact", "compact-large", "compact-nano"])
def test_old_recipes_of_a_distillation_mean_what_they_meant(name: str) -> None:
    assert load_config(OLD_RECIPES / f"{name}.toml", distillation=True) == load_config(name)


def test_an_old_recipe_whose_teacher_is_gone_is_refused_in_one_line() -> None:
    with pytest.raises(
        InputError, match=r"tiny\.toml: teacher: copies = 1, width = 8, batch_size = 4: .*teacher\.kind"
    ) as raised:
        load_config(OLD_RECIPES / "tiny.toml")
    assert "\n" not in str(raised.value)
    assert load_config(OLD_RECIPES / "tiny.toml", ["semi.selection=spread"]).semi.rounds == 1  # it trains no teacher


def test_settings_of_a_distillation_by_their_former_names() -> None:
    config = load_config("compact", ["semi.views=8", "semi.selection=peak", "teacher.steps=50"], distillation=True)
    assert (config.distillation.views, config.distillation.selection, config.distillation.quality_steps) == (
        8,
        "peak",
        50,
    )
    assert config.distillation.ratio == load_config("compact").distillation.ratio
    assert config.semi == load_config("compact").semi


def test_an_old_distillation_keeps_the_former_defaults_and_a_new_one_its_own(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text("[semi]\nviews = 3\n", encoding="utf-8")
    found = load_config(old, distillation=True).distillation
    assert (found.views, found.selection, found.ratio, found.quality_steps) == (3, "teacher", 0.1, 100)
    new.write_text(to_toml(load_config("compact", ["distillation.views=3"])), encoding="utf-8")
    assert load_config(new, distillation=True) == load_config("compact", ["distillation.views=3"])


def test_synthetic_faces_by_their_former_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "laptop"\n[drawn]\nfaces = 7\n', encoding="utf-8")
    assert load_config(file).synthetic.faces == 7
    assert load_config("laptop", ["drawn.faces=8"]).synthetic.faces == 8
    file.write_text("[drawn]\nfaces = 7\n[synthetic]\nfaces = 8\n", encoding="utf-8")
    with pytest.raises(InputError, match="drawn: renamed to synthetic"):
        load_config(file)


def test_the_former_settings_of_a_teacher_are_its_kinds() -> None:
    def former(plan: TeacherPlan) -> dict[str, object]:
        names = {"copies": "n_copies"}
        return {key: getattr(plan, names.get(key, key)) for key in old_settings.TEACHER_KINDS["peaks"]}

    assert {kind: former(plan) for kind, plan in TEACHER_KINDS.items()} == old_settings.TEACHER_KINDS
    assert former(QUALITY_NETWORK) == old_settings.QUALITY_NETWORK
    paper = teacher_plan(load_config("paper"))
    assert (paper.width, paper.norm, paper.target, paper.n_steps, paper.source) == (
        64,
        "instance",
        "heatmap",
        1000,
        "labelled",
    )


def test_arguments_are_those_of_the_network() -> None:
    with pytest.raises(InputError, match=r"students\.unet: compact: no argument 'width'; expected some of .*widths"):
        student_plans(load_config("laptop", ["students.unet.arguments.width=3"]))
    with pytest.raises(InputError, match=r"students\.unet\.architecture: .*'compact'.*given 'angle'"):
        load_config("laptop", ["students.unet.architecture=angle"])
