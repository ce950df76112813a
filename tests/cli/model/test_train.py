"""Training and calibration through the command line, and the demo."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from pypdf import PdfReader

from classifiers import load_package
from classifiers.data.pictures import Augmentation
from classifiers.data.survey import Survey
from classifiers.engines import choice
from classifiers.package import parity
from classifiers.training.settings import TilingSettings, TrainSettings
from classifiers.training.trainer import TrainProgress
from cli import console
from cli.main import load_command
from cli.model.train import survey_lines
from cli.model.train_progress import TrainingLines
from cli.model.train_settings import FURTHER
from configs.loading import option_value

KENSA = Path(sys.executable).with_name("kensa")
Kensa = Callable[..., subprocess.CompletedProcess[str]]


def test_train_then_calibrate_refuses_what_the_pictures_cannot_support(
    kensa: Kensa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kensa("synth", "surfaces", "--count", 80, "--size", 48, "--seed", 3)
    train = [
        *("train", "surfaces/labels.csv", "--out", "model", "--good-class", "good", "--group-column", "lot"),
        *("--arch", "test_resnet", "--input-size", 48, "--epochs", 1, "--batch-size", 16),
        *("--fractions", 0.4, 0.2, 0.2, 0.2, "--set", "augmentation.rotation=2"),
    ]
    done = kensa(*train)
    assert "epoch   1" in done.stderr
    package = load_package(tmp_path / "model")
    assert package.thresholds is None
    # Another training into the same folder is refused before it writes its split beside that package.
    splits = {path: path.read_bytes() for path in (tmp_path / "model.splits").iterdir()}
    assert "holds a package of another training" in kensa(*train, "--seed", 9, check=2).stderr
    assert {path: path.read_bytes() for path in (tmp_path / "model.splits").iterdir()} == splits
    assert "surfaces" in kensa(*train, "--out", "surfaces", check=2).stderr
    assert package.training["command"].startswith("kensa train surfaces/labels.csv")
    assert package.training["settings"]["augmentation"]["rotation"] == 2
    groups = {}
    for side in ("training", "validation", "calibration", "test"):
        with (tmp_path / "model.splits" / f"{side}.csv").open() as file:
            groups[side] = {row["group"] for row in csv.DictReader(file)}
    assert len(set.union(*groups.values())) == sum(map(len, groups.values())) == 20

    # 59 is the smallest number of defective pictures that can support 5 % at all.
    calibrate = ["calibrate", "model", "model.splits/calibration.csv", "--out"]
    assert "59" in kensa(*calibrate, "strict", check=2).stderr
    assert not (tmp_path / "strict").exists()
    targets = ["--target-escape-rate", 0.7, "--target-overkill", 0.7]
    done = kensa(*calibrate, "loose", *targets, "--test", "model.splits/test.csv")
    assert "pass below" in done.stdout
    assert "pictures of one group are alike: 8 defective ones count as " in done.stdout
    assert "{" not in done.stdout
    measured = json.loads((tmp_path / "loose.test.json").read_text())
    table = {row.rstrip().split("  ")[0]: row for row in done.stdout.splitlines()}
    escape = measured["escape"]
    low, high = escape["interval"]
    told = f"{escape['count']} of {escape['total']}  {low:.1%} to {high:.1%}".split()
    assert table["escape rate: defective pictures that pass"].split()[-len(told) :] == told
    assert all(f"{measured['recall'][name]['share']:.1%}" in table[name] for name in ("good", "scratch"))
    assert "balanced accuracy" in table
    assert done.stdout.rstrip().endswith("loose.test.json")
    assert load_package(tmp_path / "loose").thresholds is not None
    done = kensa(*calibrate, "blind", "--target-escape-rate", 0.7, "--target-overkill", "none")
    assert "reject: nothing without a person, since overkill has no target" in done.stdout
    blind = load_package(tmp_path / "blind").thresholds
    assert blind is not None
    assert (blind.target_overkill, blind.reject) == (None, 1)
    reduced = [*targets, "--engine", "torch", "--precision", "float32", "--precision", "bfloat16"]
    done = kensa(*calibrate, "two", *reduced)
    rows = {row.split()[0]: row.split() for row in done.stdout.splitlines() if " torch " in row}
    assert set(rows) == {"float32", "bfloat16"}
    own = load_package(tmp_path / "two").reduced[0]
    assert rows["bfloat16"][2] == f"{own.thresholds.review:.4f}"
    assert rows["bfloat16"][-2:] == [str(own.flips), f"{own.score_shift:.4f}"]
    # What cannot be had is said; where it was asked for, a person has to know.
    monkeypatch.setitem(parity.TOLERANCE, "bfloat16", 1e-9)
    done = kensa(*calibrate, "one", *reduced, check=3)
    assert "not calibrated in bfloat16:" in done.stdout
    assert "of their spread" in done.stdout
    assert load_package(tmp_path / "one").reduced == ()
    monkeypatch.setattr(choice, "bfloat16_units", lambda: True)
    assert "not calibrated in bfloat16:" in kensa(*calibrate, "automatic", *targets).stdout
    assert "neither a share" in kensa(*calibrate, "x", "--target-overkill", "nine", check=2).stderr


def test_calibration_refuses_early_and_does_without_good_pictures(
    kensa: Kensa, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # A package is never overwritten, which is told before the labels are looked for.
    assert "exists already" in kensa("calibrate", package, "absent.csv", "--out", package, check=2).stderr

    kensa("synth", "surfaces", "--count", 80, "--size", 48, "--seed", 3)
    rows = (tmp_path / "surfaces" / "labels.csv").read_text().splitlines()
    defective = [row for row in rows if ",good," not in row]
    assert 1 < len(defective) < len(rows)
    (tmp_path / "surfaces" / "defective.csv").write_text("\n".join(defective) + "\n")
    done = kensa(
        *("calibrate", package, "surfaces/defective.csv", "--out", "calibrated", "--group-column", "lot"),
        *("--target-escape-rate", 0.9, "--target-overkill", "none", "--test", "surfaces/defective.csv"),
    )
    assert "what that costs: not measured: there is no good picture" in done.stdout
    assert "no good picture was measured, so overkill and AUROC are unknown" in done.stdout
    assert json.loads((tmp_path / "calibrated.test.json").read_text())["overkill"]["share"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "augmentation.rotatoin=1"], "rotatoin: unknown; did you mean augmentation.rotation?"),
        (["--set", "foo=1"], "--set foo: unknown; `kensa train --help` lists what there is"),
        (["--set", "select_by"], "--set select_by: expected name=value"),
        (["--set", "epochs=3"], "--set epochs: has an option of its own, --epochs"),
        (["--set", "lr=3"], "--set lr: has an option of its own, --lr"),
        (["--set", "arch=x"], "--set arch: has an option of its own, --arch"),
        (["--set", "model_arg=x"], "--set model_arg: has an option of its own, --model-arg"),
        (["--arch", "resnet_18"], "--arch resnet_18: not a model of timm"),
        (["--arch", "resnet_18"], "did you mean resnet18?"),
        (["--pretrained", "/nope"], "--pretrained /nope: no such file; expected a .safetensors file, or hub"),
        (["--pretrained", __file__], "expected a .safetensors file; pickles are not read"),
        (["--set", "learning_rate=3"], "--set learning_rate: has an option of its own, --lr"),
        (["--set", "select_by=loss"], "--set select_by must be 'balanced_accuracy' or 'auroc', got 'loss'"),
        (["--set", "fit=crop"], "--set fit must be 'stretch' or 'pad', got 'crop'"),
        (["--set", "freeze_batch_norm=maybe"], "--set freeze_batch_norm: Input should be a valid boolean"),
        (
            ["--set", "augmentation.rotation=far"],
            "--set augmentation.rotation: Input should be a valid number",
        ),
        (["--set", "mean=[0.5,0.5]"], "--set mean: expected more values, got [0.5, 0.5]"),
        (["--lr", "-1"], "--lr must be positive, got -1.0"),
        (["--balance", "magic"], "--balance must be 'sampler', 'loss' or 'none', got 'magic'"),
        (["--epochs", "2", "--set", "warmup_epochs=2"], "--set warmup_epochs must be less than epochs (2)"),
        (["--input-size", "576*224"], "--input-size 576*224: expected HEIGHTxWIDTH"),
        (["--input-size", "8x224"], "--input-size must be (height, width) of at least 16 pixels each"),
    ],
)
def test_a_wrong_setting_is_named_by_its_option(
    kensa: Kensa, tmp_path: Path, arguments: list[str], message: str
) -> None:
    # Told before the pictures are looked for: there are none.
    told = kensa("train", tmp_path / "absent", "--out", tmp_path / "model", *arguments, check=2).stderr
    assert message in " ".join(told.split())


def test_the_help_lists_every_setting_once_with_its_default(kensa: Kensa) -> None:
    further = {name: default for group in FURTHER.values() for name, (default, _) in group.items()}
    train = load_command("kensa", "train")
    options = {parameter.name for parameter in train.params}
    options = options - {"model_arg"} | {"model_args"}
    defaults = {field.name: field.default for field in fields(TrainSettings)}
    varied = {f"augmentation.{field.name}": field.default for field in fields(Augmentation)}
    varied |= {f"tiling.{field.name}": field.default for field in fields(TilingSettings)}
    assert varied.pop("tiling.scale") == 1.0  # is asked for by --tile, which says it
    assert {*further} | (options & {*defaults}) == {*defaults, *varied} - {"augmentation", "tiling"}
    assert not {*further} & options
    for name, default in further.items():
        assert option_value(default, name) == (defaults | varied)[name], name
    told = " ".join(kensa("train", "--help").stdout.split())
    for group in FURTHER:
        assert f"{group}:" in told
    for name, default in further.items():
        assert f"--set {name}={default} " in told


@pytest.mark.parametrize(
    ("survey", "size", "told"),
    [
        (
            Survey(1260, 500, alike=True, defect=20.2, masks=52),
            None,
            [
                "pictures are 500 wide and 1260 high; of 52 defects with a mask a quarter are no larger than "
                "20 x 20 pixels",
                "input 576x224 (height x width): a defect of 20 pixels becomes 9, at 224x224 it would be 4; "
                "a step takes 2.6 times as long (--input-size chooses another)",
            ],
        ),
        (
            Survey(1260, 500, alike=True, defect=None),
            (224, 224),
            [
                "pictures are 500 wide and 1260 high; no masks tell how large defects are",
                "input 224x224 (height x width): a defect of 20 pixels becomes 4; use --input-size 576x224, "
                "where it becomes 9",
            ],
        ),
        (
            Survey(256, 4096, alike=True, defect=10.0, masks=1, unreadable=(Path("m.png"), Path("n.png"))),
            None,
            [
                "pictures are 4096 wide and 256 high; of 1 defects with a mask a quarter are no larger than "
                "10 x 10 pixels",
                "2 masks cannot be read, m.png among them",
                "input 128x1568 (height x width): a defect of 10 pixels becomes 4, at 224x224 it would be "
                "0.5; a step takes 4.0 times as long (--input-size chooses another)",
                "more is not taken unasked: --input-size 192x3264 shows such a defect with 8 pixels, and "
                "takes 12 times as long as 224x224",
                "--tile 1 cuts pictures into tiles that show such a defect with 10 pixels",
            ],
        ),
        (
            Survey(200, 200, alike=False, defect=4.0, masks=9),
            None,
            [
                "pictures are 200 wide and 200 high, of unlike proportions; of 9 defects with a mask a "
                "quarter are no larger than 4 x 4 pixels",
                "input 224x224 (height x width): a defect of 4 pixels becomes 4",
            ],
        ),
    ],
)
def test_what_the_input_makes_of_a_defect_is_told(
    survey: Survey, size: tuple[int, int] | None, told: list[str]
) -> None:
    used = size or survey.proposed_size
    assert survey_lines(survey, used, asked=size is not None) == told


def test_a_log_file_gets_a_line_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console.err, "_force_terminal", False)
    seconds = iter(range(1000))
    metrics = {"balanced_accuracy": 0.5, "auroc": None, "is_best": True}
    now = 0.0
    with TrainingLines(clock=lambda: now) as show:
        for done in range(1, 13):
            now = next(seconds)
            show(TrainProgress("reading", done, 12))
        show(TrainProgress("notice", 0, 0, text="the batch norms [of] these weights"))
        for done in range(1, 11):
            now = next(seconds)
            show(TrainProgress("training", done, 10, 1, 3, loss=2 - done / 10))
        now = next(seconds)
        show(TrainProgress("validating", 4, 4, 1, 3))
        show(TrainProgress("validated", 10, 10, 1, 3, loss=1.0, metrics=metrics))
    told = capsys.readouterr().err
    assert "\r" not in told
    assert told.splitlines() == [
        "reading picture 6 of 12",
        "reading picture 11 of 12",
        "the batch norms [of] these weights",
        "epoch 1 of 3: step 4 of 10, loss 1.600, about 26 s left",
        "epoch 1 of 3: step 9 of 10, loss 1.100, about 21 s left",
        "epoch   1  loss 1.000  balanced accuracy 0.500  best",
    ]


@pytest.mark.slow
def test_the_demo_runs_twice_and_shows_what_it_found(
    tmp_path: Path, prefect_environment: dict[str, str]
) -> None:
    def outside(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KENSA, *arguments],
            cwd=tmp_path,
            env=prefect_environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    first = outside("demo")
    assert "120 listed = " in first.stdout
    assert "2 unreadable" in first.stdout
    assert "13 of 13 defective parts flagged" in first.stdout
    assert first.stdout.count("kensa ") >= 3
    report = PdfReader(tmp_path / "demo" / "reports" / "R000001-1.pdf")
    findings = len(list((tmp_path / "demo" / "reports").iterdir()))
    assert findings == 1
    text = report.pages[0].extract_text()
    assert "Surface inspection" in text
    assert "120" in text
    second = outside("demo")
    assert "run R000002 done" in second.stdout
    assert "(118 carried over)" in second.stdout or "(120 carried over)" in second.stdout
    outside("audit", "verify", "-c", "demo")
