"""Settings: every recipe loads, what is written is read back, what is wrong is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from fewmark.core.errors import InputError
from fewmark.training.config import Config, StudentSettings, load_config, recipe_names, to_toml
from fewmark.training.semi.plans import make_loop, student_plans


def n_settings(model: type[BaseModel]) -> int:
    total = 0
    for field in model.model_fields.values():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            total += n_settings(kind)
        elif "StudentSettings" in str(kind):
            total += n_settings(StudentSettings)
        else:
            total += 1
    return total


def test_there_are_at_most_60_settings() -> None:
    assert 40 < n_settings(Config) <= 60


def test_the_recipes_that_are_promised_are_there() -> None:
    assert {"laptop", "paper"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_builds(name: str) -> None:
    config = load_config(name)
    for plan in student_plans(config):
        module = plan.build(68, 0)
        assert module.stride == plan.codec.stride
    assert make_loop(config).n_rounds == config.semi.rounds


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
    loop = make_loop(config)
    assert loop.n_rounds == 0
    assert loop.first_length == config.semi.first_length + config.semi.rounds


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("semi.ratoi=0.2", ["semi.ratoi", "no such setting"]),
        ("semi.ratio=2", ["semi.ratio", "less than or equal to 1", "2"]),
        ("semi.selection=best", ["semi.selection", "'best'"]),
        ("semi.ratio", ["--set", "section.key=value"]),
        ("semi.ratio.x=1", ["--set", "a value, not a section"]),
        ("students.unet.codec.stride=0", ["students.unet.codec.stride", "0"]),
    ],
)
def test_bad_settings_are_refused_in_one_line(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        load_config("laptop", [override])
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_bad_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file, and packaged are .*laptop"):
        load_config("labtop")
    broken = tmp_path / "broken.toml"
    broken.write_text("[semi\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.toml: not a TOML file"):
        load_config(broken)
