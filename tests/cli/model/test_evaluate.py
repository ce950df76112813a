"""`kensa evaluate` and `kensa patches` through the command line; the shipped evaluation profiles."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from configs.evaluation import CocoData, FolderData, SeverstalData, VocData, load_evaluation
from configs.loading import ConfigError
from explainers import ExplainerError
from explainers.sise.sise import Sise
from sources.synthetic import write_dataset

SHIPPED = Path(__file__).parents[3] / "classifiers" / "packages" / "synthetic-surface"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kensa(*arguments: object) -> str:
    """Run the command line in this process; what it prints."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_evaluate_writes_the_table_and_goes_on(tmp_path: Path, package: Path) -> None:
    surfaces = write_dataset(tmp_path / "surfaces", count=24, size=64, seed=3, defect_share=0.8)
    out = tmp_path / "out"
    settings = {
        "name": "Surfaces",
        "output": str(out),
        "data": {"kind": "folder", "path": str(surfaces / "labels.csv"), "limit": 3},
        "model": {"package": str(package), "device": "cpu"},
        "explainers": ["sise", {"method": "sise", "label": "soft", "options": {"fusion": "soft"}}],
        "metrics": ["ebpg", "rank_correlation"],
        "examples": 2,
    }
    config = tmp_path / "evaluation.yaml"
    config.write_text(yaml.safe_dump(settings))
    printed = kensa("evaluate", "-c", config)
    assert "EBPG, % ↑" in printed
    assert "3 pairs of picture and class in 3 pictures" in printed
    lines = (out / "results.jsonl").read_text().splitlines()
    assert len(lines) == 6
    table = json.loads((out / "table.json").read_text())
    # With random weights a map may well be undefined; it is counted then.
    for label in ("sise", "soft"):
        assert sum(table["statuses"][label].values()) == 3
        assert table["statuses"][label]["failed"] == 0
        made = table["statuses"][label]["ok"] + table["statuses"][label]["partial"]
        values = [json.loads(line)["values"] for line in lines if json.loads(line)["explainer"] == label]
        measured = [value["ebpg"] for value in values if value]
        assert len(measured) == made > 0
        assert table["cells"]["ebpg"][label]["mean"] == pytest.approx(np.mean(measured))
    assert table["settings"]["data"]["limit"] == 3
    assert table["title"] == "Surfaces"
    assert "# Surfaces" in (out / "table.md").read_text()
    with (out / "table.csv").open() as file:
        assert {row["metric"] for row in csv.DictReader(file)} == {
            "ebpg",
            "rank_correlation",
            "seconds",
            "masks",
        }
    with Image.open(out / "maps.png") as sheet:
        assert sheet.width == 3 * 200 + 8
        assert sheet.height == 24 + 2 * 216
    kensa("evaluate", "-c", config)
    assert (out / "results.jsonl").read_text().splitlines() == lines
    with pytest.raises(ExplainerError, match="no sample of a class that the model knows"):
        kensa("evaluate", "-c", config, "--set", "data.classes=[moon]")
    with pytest.raises(ExplainerError, match="tea-leaves"):
        kensa("evaluate", "-c", config, "--set", "explainers=[tea-leaves]", "--set", "metrics=[ebpg]")
    with pytest.raises(ConfigError, match=r"metrics\.0: expected"):
        kensa("evaluate", "-c", config, "--set", "metrics=[foo]")


METHODS = {
    "sise-fast": {},
    "ada-sise": {},
    "grad-cam": {},
    "rise": {"masks": 24},
    "fullgrad": {},
    "extremal-perturbation": {"iterations": 2},
    "integrated-gradients": {"steps": 4},
}


def test_the_shipped_model_is_judged_on_made_surfaces_by_methods_of_every_kind(tmp_path: Path) -> None:
    kensa("synth", tmp_path / "set", "--kind", "dataset", "--count", 8, "--seed", 1, "--defect-share", 0.9)
    out = tmp_path / "out"
    settings = {
        "output": str(out),
        "data": {"kind": "folder", "path": str(tmp_path / "set/labels.csv"), "limit": 2},
        "model": {"package": str(SHIPPED), "device": "cpu"},
        "explainers": [{"method": method, "options": options} for method, options in METHODS.items()],
        "examples": 2,
    }
    config = tmp_path / "evaluation.yaml"
    config.write_text(yaml.safe_dump(settings))
    assert "2 pairs of picture and class in 2 pictures" in kensa("evaluate", "-c", config)
    assert {file.name for file in out.iterdir() if file.is_file()} == {
        "results.jsonl",
        "table.md",
        "table.json",
        "table.csv",
        "maps.png",
    }
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    made = [line for line in lines if line["explainer"]]
    assert sorted(line["explainer"] for line in made) == sorted([*METHODS] * 2)
    assert all(line["status"].startswith(("ok", "partial")) for line in made)
    assert len({line["values"]["ebpg"] for line in made}) == len(made)  # no two maps alike
    table = json.loads((out / "table.json").read_text())
    with (out / "table.csv").open() as file:
        columns = {row["explainer"] for row in csv.DictReader(file)}
    assert columns == set(METHODS)
    markdown = (out / "table.md").read_text()
    masks = {method: table["cells"]["masks"][method]["mean"] for method in METHODS}
    for method in METHODS:
        assert method in markdown
        for metric in ("ebpg", "miou", "bbox", "drop", "increase"):
            assert 0 <= table["cells"][metric][method]["mean"] <= 100
    # A twentieth of these pictures is defect: a map that knows nothing of it has an EBPG near 5 %.
    assert table["cells"]["ebpg"]["sise-fast"]["mean"] > 20
    # ResNet-10 with 24 + 24 + 48 + 96 + 192 maps; half of them at most have a positive gradient above Otsu's.
    assert 0 < masks["sise-fast"] < masks["ada-sise"] < 384 / 2
    assert masks["rise"] == 24
    assert masks["grad-cam"] == masks["fullgrad"] == masks["integrated-gradients"] == 0
    with Image.open(out / "maps.png") as sheet:
        assert sheet.size == ((1 + len(METHODS)) * 200 + 8, 24 + 2 * 216)
        # Every cell of every row is a picture, not a remark on white.
        for row in range(2):
            for column in range(1 + len(METHODS)):
                left, top = 8 + column * 200, 24 + 16 + row * 216
                tile = np.asarray(sheet.crop((left, top, left + 192, top + 192)).convert("L"))
                assert tile.std() > 5
                assert (tile == 255).mean() < 0.1


def test_a_failed_map_is_told_by_the_exit_code(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surfaces = write_dataset(tmp_path / "surfaces", count=12, size=64, seed=3, defect_share=0.8)
    config = tmp_path / "evaluation.yaml"
    settings = {
        "output": str(tmp_path / "out"),
        "data": {"kind": "folder", "path": str(surfaces / "labels.csv"), "limit": 1},
        "model": {"package": str(package), "device": "cpu"},
        "explainers": ["sise"],
    }
    config.write_text(yaml.safe_dump(settings))

    def fail(*_: object) -> None:
        raise RuntimeError("out of [memory]")

    monkeypatch.setattr(Sise, "__call__", fail)
    done = CliRunner().invoke(app, ["evaluate", "-c", str(config)], catch_exceptions=False)
    assert done.exit_code == 3
    assert "sise failed 1 times: RuntimeError: out of [memory]" in done.output
    assert "failed 1 times" in (tmp_path / "out" / "table.md").read_text()


def test_patches(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()
    Image.fromarray(np.full((256, 1600), 90, dtype=np.uint8)).save(tmp_path / "train_images/a.jpg")
    (tmp_path / "train.csv").write_text("ImageId,ClassId,EncodedPixels\na.jpg,2,1 300\n")
    cut = tmp_path / "cut"
    printed = kensa("patches", tmp_path / "train.csv", tmp_path / "train_images", "--out", cut, "--good", 2)
    assert f"kensa train {cut / 'labels.csv'}" in printed
    with (cut / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["label"] for row in rows) == ["2", "none", "none"]
    assert {row["group"] for row in rows} == {"a.jpg"}


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        ("evaluate-folder", FolderData),
        ("evaluate-severstal", SeverstalData),
        ("evaluate-voc", VocData),
        ("evaluate-coco", CocoData),
    ],
)
def test_shipped_profiles_load(profile: str, kind: type) -> None:
    settings = load_evaluation(profile)
    assert isinstance(settings.data, kind)
    assert settings.compared_with == "sise"


GOOD = """\
output: out
data: {kind: voc, root: voc}
model: {package: model}
explainers: [sise, grad-cam]
"""


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (GOOD + "metrix: []\n", [], "e.yaml: metrix: unknown key"),
        (GOOD, ["data.yaer=2007"], "--set: data.yaer: unknown key"),
        (GOOD, ["metrics=[foo]"], "--set: metrics.0: expected 'ebpg', 'miou'"),
        (GOOD, ["data.kind=imagenet"], "--set: data: expected"),
        (GOOD, ["explainers=[sise, sise]"], "--set: explainers: expected a label of its own"),
        (GOOD, ["reference=rise"], "reference to be one of sise, grad-cam, got 'rise'"),
        (GOOD, ["model.architecture=vgg16"], "model: expected a package alone"),
        (
            GOOD.replace("package: model", "architecture: vgg16"),
            [],
            "expected package, or architecture and weights",
        ),
        (
            GOOD.replace("package: model", "architecture: vgg16, weights: w.safetensors, mapping: m.csv"),
            [],
            "expected outputs, the number of the network's outputs",
        ),
        ("output: out\n", [], "e.yaml: data: missing; expected a value"),
    ],
)
def test_mistakes_name_file_key_and_expectation(
    tmp_path: Path, text: str, overrides: list[str], words: str
) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_evaluation(path, overrides)
    assert words in str(raised.value)


def test_names_that_yaml_takes_for_numbers(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(GOOD)
    settings = load_evaluation(path, ["data.year=2007", "data.classes=[1, cat]", "metrics=[ebpg]"])
    assert isinstance(settings.data, VocData)
    assert settings.data.year == "2007"
    assert settings.data.classes == ("1", "cat")
