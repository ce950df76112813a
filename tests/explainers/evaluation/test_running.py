"""The run of an evaluation: outcomes worked out by hand, resuming, failures, the table."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from classifiers import Preprocessing
from explainers import ExplainerError, Explanation, registry
from explainers.evaluation.grid import GridRow, maps_grid
from explainers.evaluation.measures import MeasureSettings, limits
from explainers.evaluation.models import EvaluatedModel, package_model, read_mapping, weights_model
from explainers.evaluation.outcomes import Outcome
from explainers.evaluation.plan import Method, Plan
from explainers.evaluation.running import Evaluation, fit_mask
from explainers.evaluation.samples import Sample, SampleSet
from explainers.evaluation.summary import summarise
from explainers.evaluation.tables import as_markdown, heading, write_tables

ALL = ("ebpg", "miou", "bbox", "drop", "increase", "pointing_game", "rank_correlation")


class Halves(nn.Module):
    """Logits: the mean of the left half, of the right half, and of the right half less a little."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x[:, 0, :, :2].mean(dim=(1, 2)), x[:, 0, :, 2:].mean(dim=(1, 2))
        return torch.stack((left, right, right - 0.1), dim=1)


@pytest.fixture
def model() -> EvaluatedModel:
    plain = Preprocessing((4, 4), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), fit="stretch")
    indices = {"left": (0,), "right": (1, 2)}
    return EvaluatedModel("halves", Halves(), plain, "softmax", indices, "d1", torch.device("cpu"))


def sample(image: str, label: str, bright: str, mask: np.ndarray | None = None) -> Sample:
    """A 4 x 4 picture with one bright half; the truth is the half that the label names."""
    pixels, half = np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 4), dtype=bool)
    columns = {"left": slice(0, 2), "right": slice(2, 4)}
    pixels[:, columns[bright]] = 255
    half[:, columns[label]] = True
    return Sample(image, label, Path(image), image, lambda: (pixels, half if mask is None else mask))


class Made:
    """An explainer that always gives one map."""

    calls = 0

    def __init__(self, name: str, values: Tensor, status: str, options: dict) -> None:
        self.method, self._values, self._status, self.parameters = name, values, status, options

    def __call__(self, images: Tensor, targets: Tensor) -> Explanation:
        type(self).calls += 1
        if self.method == "broken":
            raise RuntimeError("out of memory")
        return Explanation(
            maps=self._values[None],
            block_maps={},
            scores=torch.tensor([0.5]),
            masks={"a": torch.tensor([3]), "b": torch.tensor([4])},
            status=(self._status,),
            layers=(),
            targets=targets,
            images=torch.tensor([0]),
            method=self.method,
            parameters=self.parameters,
        )


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> type[Made]:
    """Registers "left" (1 on the left half), "ramp" (0.25 to 1 from left to right), "none", "broken"."""
    left = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).repeat(4, 1)
    ramp = torch.tensor([[0.25, 0.5, 0.75, 1.0]]).repeat(4, 1)
    maps = {"left": (left, "ok"), "ramp": (ramp, "ok"), "broken": (left, "ok")}
    maps["none"] = (torch.zeros(4, 4), "undefined: nothing")
    Made.calls = 0

    def create(name: str, _model: nn.Module, **options: object) -> Made:
        if name not in maps:
            raise ExplainerError(f"no explainer is named {name!r}")
        return Made(name, *maps[name], options)

    monkeypatch.setattr(registry, "create_explainer", create)
    monkeypatch.setattr(registry, "explainer_options", lambda _: ("mean", "batch_size", "wild"))
    return Made


def plan(*names: str, **settings: object) -> Plan:
    metrics = settings.pop("metrics", ("ebpg", "bbox"))
    methods = tuple(Method(name, name) for name in names)
    return Plan(methods, MeasureSettings(names=metrics), **settings)  # type: ignore[arg-type]


DATA = SampleSet(
    "halves",
    (sample("a", "left", "left"), sample("a", "right", "left"), sample("b", "left", "left")),
    {"kind": "made"},
)


def test_every_metric_by_hand(model: EvaluatedModel, tmp_path: Path) -> None:
    done = Evaluation(DATA, model, plan("left", "ramp", metrics=ALL, reference="ramp"), tmp_path)
    steps: list[tuple[int, int]] = []
    done.run(lambda now, total: steps.append((now, total)))
    assert steps[0] == (0, 6)
    assert steps[-1] == (6, 6)
    found = {(o.image, o.label, o.explainer): o for o in done.outcomes()}
    assert len(found) == 6
    right_map = found["a", "left", "left"].values
    assert right_map["ebpg"] == 100
    assert right_map["bbox"] == 100
    assert right_map["pointing_game"] == 100
    # The top 20 % are 3 of 16 pixels, all of them tied with the 8 of the truth.
    assert right_map["miou"] == pytest.approx(100 * 3 / 8)
    # A map that is the same everywhere: half of its sum and of its top pixels are in the half that is true.
    assert right_map["ebpg_chance"] == right_map["bbox_chance"] == right_map["pointing_game_chance"] == 50
    assert right_map["ebpg_attainable"] == right_map["bbox_attainable"] == 100
    assert right_map["miou_chance"] == pytest.approx(100 * 1.5 / (3 + 8 - 1.5))
    assert right_map["miou_attainable"] == pytest.approx(100 * 3 / 8)
    assert "drop_chance" not in right_map
    # Ranks: 12.5 and 4.5 against 2.5, 6.5, 10.5, 14.5, four of each.
    assert right_map["rank_correlation"] == pytest.approx(-256 / np.sqrt(256 * 320), abs=1e-6)
    assert right_map["masks"] == 7
    assert right_map["seconds"] > 0
    # Kept are 15 %, 2 of 16 pixels, and all 8 that tie with them: the whole bright half.
    assert right_map["drop"] == 0
    assert right_map["increase"] == 0
    ramp = found["a", "left", "ramp"].values
    assert ramp["ebpg"] == pytest.approx(100 * 0.75 / 2.5)
    assert ramp["bbox"] == 0
    assert ramp["miou"] == 0
    assert ramp["pointing_game"] == 0
    assert ramp["rank_correlation"] == pytest.approx(1)
    # Only the dark last column is kept: all scores become softmax(0, 0, -0.1).
    before = float(torch.tensor([1.0, 0.0, -0.1]).softmax(0)[0])
    after = float(torch.tensor([0.0, 0.0, -0.1]).softmax(0)[0])
    assert ramp["drop"] == pytest.approx(100 * (before - after) / before, rel=1e-5)
    other = found["a", "right", "ramp"]
    assert other.target == 1
    assert other.values["ebpg"] == pytest.approx(100 * 1.75 / 2.5)
    assert other.values["increase"] == 100


def test_a_restart_goes_on_where_a_kill_left_it(
    model: EvaluatedModel, tmp_path: Path, made: type[Made]
) -> None:
    settings = plan("left", "ramp", metrics=("ebpg", "rank_correlation"), reference="left", examples=1)
    Evaluation(DATA, model, settings, tmp_path).run()
    assert made.calls == 6
    file = tmp_path / "results.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    # Killed while the last line was being written.
    file.write_text("".join(lines[:-1]) + lines[-1][:40])
    again = Evaluation(DATA, model, settings, tmp_path)
    again.run()
    assert made.calls == 7
    assert file.read_text().count("\n") == 6
    assert len(again.outcomes()) == 6
    assert {line["explainer"] for line in map(json.loads, file.read_text().splitlines())} == {"left", "ramp"}
    again.run()
    assert made.calls == 7
    # Maps: of the reference all three, of the other the one example.
    maps = sorted((tmp_path / "maps").iterdir())
    assert len(maps) == 4
    maps[0].unlink()
    Evaluation(DATA, model, settings, tmp_path).run()
    assert made.calls == 8
    assert len(list((tmp_path / "maps").iterdir())) == 4


def test_changed_settings_do_not_mix(model: EvaluatedModel, tmp_path: Path, made: type[Made]) -> None:
    def run(model: EvaluatedModel, settings: Plan, data: SampleSet = DATA) -> int:
        before = made.calls
        done = Evaluation(data, model, settings, tmp_path)
        done.run()
        assert len(done.outcomes()) == 3 * len(settings.methods)
        return made.calls - before

    base = plan("left")
    assert run(model, base) == 3
    assert run(model, replace(base, batch_size=4)) == 0
    assert run(model, replace(base, only_correct=False, examples=8)) == 0
    assert run(model, plan("left", "ramp")) == 3
    assert run(model, plan("left", metrics=("ebpg",))) == 0
    assert run(model, plan("left", metrics=("ebpg", "miou"))) == 3
    assert run(model, replace(base, methods=(Method("left", "left", {"wild": 1}),))) == 3
    assert run(replace(model, digest="d2"), base) == 3
    assert run(model, base, replace(DATA, truth={"kind": "other"})) == 3
    assert run(model, base) == 0  # bbox is kept beside miou


def test_failures_are_counted_and_tried_again(
    model: EvaluatedModel, tmp_path: Path, made: type[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = plan("left", "none", "broken", metrics=("ebpg", "rank_correlation"), reference="none")
    done = Evaluation(DATA, model, settings, tmp_path)
    done.run()
    summary = summarise(done.outcomes(), ("left", "none", "broken"), ("ebpg", "rank_correlation", "seconds"))
    assert summary.statuses["broken"] == {"ok": 0, "partial": 0, "undefined": 0, "failed": 3}
    assert summary.statuses["none"]["undefined"] == 3
    assert summary.reasons == {"broken": {"RuntimeError: out of memory": 3}}
    assert summary.failures == 3
    assert set(summary.cells["ebpg"]) == {"left"}
    assert summary.cells["rank_correlation"] == {}
    assert summary.cells["ebpg"]["left"].count == 3
    calls = made.calls
    Evaluation(DATA, model, settings, tmp_path).run()
    assert made.calls == calls + 3
    monkeypatch.setattr(Made, "__call__", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Evaluation(DATA, model, settings, tmp_path).run()


def test_samples_that_are_not_evaluated_are_counted(model: EvaluatedModel, tmp_path: Path) -> None:
    gone = [True]

    def read() -> tuple[np.ndarray, np.ndarray]:
        if gone[0]:
            raise ExplainerError("c.png: cannot be read")
        return sample("c", "left", "left").read()

    empty = np.zeros((9, 9), dtype=bool)
    empty[0, 0] = True  # nearest neighbour takes rows 1, 3, 5 and 7
    data = replace(
        DATA,
        samples=(
            *DATA.samples,
            Sample("c", "left", Path("c"), "c", read),
            sample("d", "left", "left", mask=empty),
        ),
    )
    settings = plan("left", only_correct=True)
    done = Evaluation(data, model, settings, tmp_path)
    done.run()
    summary = summarise(done.outcomes(), ("left",), ("ebpg",))
    assert summary.left_out == {
        "the class is not the model's most probable one": 1,
        "failed: c.png: cannot be read": 1,
        "the class has no pixel left at the network's input size": 1,
    }
    assert (summary.samples, summary.images, summary.failures) == (2, 2, 1)
    assert [one.image for one in done.examples()] == ["a", "b"]
    gone[0] = False
    again = Evaluation(data, model, settings, tmp_path)
    again.run()
    summary = summarise(again.outcomes(), ("left",), ("ebpg",))
    assert (summary.samples, summary.failures) == (3, 0)
    assert len(summary.left_out) == 2


def test_of_several_outputs_the_most_probable_is_explained(model: EvaluatedModel, tmp_path: Path) -> None:
    data = replace(DATA, samples=(sample("a", "right", "right"),))
    other = replace(model, indices={"left": (0,), "right": (2, 1)})
    done = Evaluation(data, other, plan("left", only_correct=True), tmp_path)
    done.run()
    assert [outcome.target for outcome in done.outcomes()] == [1]


def test_bad_plans_and_files(model: EvaluatedModel, tmp_path: Path) -> None:
    with pytest.raises(ExplainerError, match="different labels, got left, left"):
        plan("left", "left")
    with pytest.raises(ExplainerError, match="reference 'sise' is not one of left"):
        plan("left", reference="sise")
    with pytest.raises(ExplainerError, match="rank_correlation needs a reference"):
        plan("left", metrics=("rank_correlation",))
    with pytest.raises(ExplainerError, match="no metric is named 'ebgp'"):
        plan("left", metrics=("ebgp",))
    with pytest.raises(ExplainerError, match="no explainer is named 'cam'"):
        Evaluation(DATA, model, plan("cam"), tmp_path)
    (tmp_path / "results.jsonl").write_text('{"image": "a"}\n{}\n')
    with pytest.raises(ExplainerError, match=r"results.jsonl, line 1: not an outcome"):
        Evaluation(DATA, model, plan("left"), tmp_path)


def test_masks_are_brought_to_the_input_like_their_pictures() -> None:
    padded = Preprocessing((4, 8), fit="pad")
    fitted = fit_mask(padded, np.ones((6, 6), dtype=bool))
    assert fitted[:, 2:6].all()
    assert fitted.sum() == 16
    half = np.zeros((6, 6), dtype=bool)
    half[:, :3] = True
    stretched = fit_mask(replace(padded, fit="stretch"), half)
    assert stretched[:, :4].all()
    assert stretched.sum() == 16


# --- the table --------------------------------------------------------------------------------------------


def outcome(image: str, explainer: str, group: str = "", **values: float | None) -> Outcome:
    return Outcome(image, "pit", group or image, explainer, "s", "ok", 0, 0.5, values)


def test_means_and_intervals() -> None:
    outcomes = [outcome(str(n), "a", ebpg=float(n)) for n in range(40)]
    cell = summarise(outcomes, ("a",), ("ebpg",)).cells["ebpg"]["a"]
    assert cell.mean == pytest.approx(19.5)
    assert cell.median == pytest.approx(19.5)
    error = np.arange(40.0).std() / np.sqrt(40)
    assert cell.low == pytest.approx(19.5 - 1.96 * error, abs=0.4)
    assert cell.high == pytest.approx(19.5 + 1.96 * error, abs=0.4)
    assert summarise(outcomes, ("a",), ("ebpg",)).cells["ebpg"]["a"] == cell
    # Two groups of equal means leave nothing to resample; one alone has no interval.
    grouped = [outcome(str(n), "a", "x" if n % 4 in (0, 3) else "y", ebpg=float(n)) for n in range(40)]
    cell = summarise(grouped, ("a",), ("ebpg",)).cells["ebpg"]["a"]
    assert (cell.mean, cell.low, cell.high) == pytest.approx((19.5, 19.5, 19.5))
    single = summarise([outcome("1", "a", ebpg=1.0)], ("a",), ("ebpg",)).cells["ebpg"]["a"]
    assert (single.low, single.high, single.count) == (None, None, 1)


def test_undefined_metrics_are_not_averaged() -> None:
    summary = summarise(
        [outcome("1", "a", rank_correlation=None), outcome("2", "a", rank_correlation=0.5)],
        ("a",),
        ("rank_correlation",),
    )
    assert summary.cells["rank_correlation"]["a"].count == 1
    assert summary.cells["rank_correlation"]["a"].mean == 0.5


def test_what_a_small_defect_allows() -> None:
    """50 of 10,000 pixels are true, as where 0.5 % are: the top 20 % of a map cannot overlap them more."""
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, 50:55, 50:60] = True
    found = limits(
        MeasureSettings(names=("ebpg", "miou", "bbox", "pointing_game", "drop"), tolerance=1), mask
    )
    assert found == pytest.approx(
        {
            "ebpg_chance": 0.5,
            "ebpg_attainable": 100,
            "miou_chance": 100 * 10 / 2040,
            "miou_attainable": 2.5,
            "bbox_chance": 0.5,
            "bbox_attainable": 100,
            # A distance of 1: one more row above and below, one more column left and right, no corners.
            "pointing_game_chance": 0.8,
            "pointing_game_attainable": 100,
        }
    )


def test_limits_are_means_over_the_pairs_and_stand_beside_their_metric() -> None:
    def measured(image: str, explainer: str, attainable: float) -> Outcome:
        return outcome(image, explainer, miou=2.0, miou_chance=0.25, miou_attainable=attainable)

    # Pair 1 is the same for both explainers and counts once.
    outcomes = [measured("1", "a", 2.5), measured("1", "b", 2.5), measured("2", "a", 7.5)]
    summary = summarise(outcomes, ("a", "b"), ("miou", "drop"))
    assert (summary.chance, summary.attainable) == ({"miou": 0.25}, {"miou": 5.0})
    assert "| mIoU, % ↑ | 0.25 | 5.00 | **2.00" in as_markdown(summary, {})
    # Results that an earlier kensa wrote have no limits; a mean over the others would be of other pictures.
    older = summarise([*outcomes, outcome("3", "a", miou=1.0)], ("a", "b"), ("miou",))
    assert (older.chance, older.attainable) == ({}, {})


def test_the_heading_says_which_peaks_count() -> None:
    plain = summarise([outcome("1", "a", pointing_game=100.0)], ("a",), ("pointing_game",))
    assert heading(plain, "pointing_game") == "Pointing game, peak on the truth, % ↑"
    tolerant = replace(plain, tolerance=15.0)
    assert "| Pointing game, peak within 15 px of the truth, % ↑ |" in as_markdown(tolerant, {})


def test_tables(tmp_path: Path) -> None:
    outcomes = [outcome("1", "a|b", ebpg=60.0, drop=30.0), outcome("1", "sise", ebpg=61.0, drop=30.001)]
    summary = summarise(outcomes, ("a|b", "sise", "idle"), ("ebpg", "drop"), reference="sise")
    about = {"title": "T", "facts": {"data": "steel"}}
    text = as_markdown(summary, about)
    assert "| EBPG, % ↑ | – | – | 60.00 | **61.00** | – |" in text
    assert "| Drop, % ↓ | – | – | **30.00** | **30.00** | – |" in text
    assert "| | chance | at most | a\\|b | sise | idle |" in text
    assert "- data: steel" in text
    assert "failed" not in text
    paths = write_tables(summary, about, tmp_path)
    assert [path.name for path in paths] == ["table.md", "table.csv", "table.json"]
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["metric"] == "ebpg"
    assert float(rows[1]["mean"]) == 61
    assert rows[1]["chance"] == ""
    assert json.loads((tmp_path / "table.json").read_text())["cells"]["drop"]["sise"]["mean"] == 30.001


def test_grid_shows_truth_maps_and_reasons() -> None:
    pixels, truth = np.full((32, 32, 3), 200, dtype=np.uint8), np.zeros((32, 32), dtype=bool)
    truth[8:24, 8:24] = True
    row = GridRow("pit: a", pixels, truth, (np.ones((32, 32), dtype=np.float32), "undefined: nothing"))
    sheet = maps_grid([row, row], ("sise", "none"), tile=32)
    assert sheet.shape == (24 + 2 * 56, 3 * 40 + 8, 3)
    picture = sheet[40:72, 8:40]
    line = (picture != 200).any(axis=2)
    expected = np.zeros((32, 32), dtype=bool)
    expected[6:26, 6:26] = True  # one pixel away from the truth, all around it
    expected[7:25, 7:25] = False
    assert (line == expected).all()
    assert {tuple(pixel) for pixel in picture[expected].tolist()} == {(255, 0, 190), (255, 255, 255)}
    painted = sheet[40:72, 48:80]
    assert (painted[expected] == picture[expected]).all()
    assert (painted[0, 0] != 200).any()
    with pytest.raises(ExplainerError, match="pit: a: needs one map for each"):
        maps_grid([row], ("sise",))
    with pytest.raises(ExplainerError, match="needs rows"):
        maps_grid([], ("sise",))


def test_a_thin_map_on_a_thin_truth_is_seen() -> None:
    """The row that is true and mapped is as bright as without the truth, also where the picture shrinks."""
    pixels = np.full((128, 128, 3), 60, dtype=np.uint8)
    truth, values = np.zeros((128, 128), dtype=bool), np.zeros((128, 128), dtype=np.float32)
    truth[66, 20:100] = True
    values[64:68] = 1
    with_truth = maps_grid([GridRow("x", pixels, truth, (values,))], ("a",), tile=32)[40:72, 48:80]
    without = maps_grid([GridRow("x", pixels, np.zeros_like(truth), (values,))], ("a",), tile=32)[
        40:72, 48:80
    ]
    changed = (with_truth != without).any(axis=2)
    # Row 66 and columns 20 to 99 of 128 are row 16 and columns 5 to 24 of 32; the line is one pixel away.
    assert not changed[15:18, 4:26].any()
    assert changed[[14, 18], 3:27].all()
    assert changed[14:19, [3, 26]].all()
    assert changed.sum() == 2 * 24 + 2 * 3


# --- models -----------------------------------------------------------------------------------------------

PLAIN = Preprocessing((32, 32))


@pytest.mark.parametrize("architecture", ["test_resnet", "torchvision:squeezenet1_1"])
def test_weights_from_a_file(tmp_path: Path, architecture: str) -> None:
    import timm
    import torchvision

    if architecture == "test_resnet":
        network = timm.create_model("test_resnet", num_classes=5)
    else:
        network = torchvision.models.squeezenet1_1(weights=None, num_classes=5)
    file = tmp_path / "w.safetensors"
    save_file(network.state_dict(), file)

    def load(**changes: object) -> EvaluatedModel:
        settings = {"outputs": 5, "indices": {"pit": (1, 4)}, "preprocessing": PLAIN, "device": "cpu"}
        return weights_model(architecture, file, **{**settings, **changes})  # type: ignore[arg-type]

    model = load()
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(model.network(x), network.eval()(x))
    assert not model.network.training
    assert model.digest == load().digest
    assert model.digest != load(activation="sigmoid").digest
    assert model.digest != load(indices={"pit": (1,)}).digest
    with pytest.raises(ExplainerError, match=r"w.safetensors: does not fit"):
        load(outputs=6)
    with pytest.raises(ExplainerError, match=r"'pit' is mapped to \[5\]; there are 5 outputs"):
        load(indices={"pit": (5,)})


def test_bad_weights_and_architectures(tmp_path: Path) -> None:
    def load(architecture: str, file: str) -> EvaluatedModel:
        return weights_model(
            architecture, tmp_path / file, outputs=2, indices={"a": (0,)}, preprocessing=PLAIN, device="cpu"
        )

    (tmp_path / "x.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ExplainerError, match=r"x.pth: weights are read from .safetensors files alone"):
        load("resnet18", "x.pth")
    with pytest.raises(ExplainerError, match=r"x.safetensors: cannot be read as safetensors"):
        load("resnet18", "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ExplainerError, match="'fcn_resnet50' is not a classifier of torchvision"):
        load("torchvision:fcn_resnet50", "a.safetensors")


def test_mapping(tmp_path: Path) -> None:
    file = tmp_path / "map.csv"
    file.write_text(
        'imagenet_index,imagenet_label,coco_category\n281,"tabby, tabby cat",cat\n282,tiger,cat\n3,x,\n'
    )
    assert read_mapping(file, "imagenet_index", "coco_category") == {"cat": (281, 282)}
    file.write_text("imagenet_index,coco_category\n281,cat\nx,cat\n")
    with pytest.raises(ExplainerError, match=r"map.csv, line 3: imagenet_index must be a whole number"):
        read_mapping(file, "imagenet_index", "coco_category")


def test_a_model_package(tmp_path: Path) -> None:
    import timm

    from classifiers import save_package

    network = timm.create_model("test_resnet", num_classes=2).eval()
    saved = save_package(
        tmp_path / "package",
        network,
        architecture="test_resnet",
        model_args={},
        classes=("good", "pit"),
        good_class="good",
        task="single-label",
        preprocessing=PLAIN,
        temperature=2.0,
    )
    model = package_model(tmp_path / "package", "cpu")
    assert model.indices == {"good": (0,), "pit": (1,)}
    assert (model.digest, model.activation, model.preprocessing) == (saved.digest, "softmax", PLAIN)
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(model.network(x), network(x) / 2.0)


def test_real_explainer_end_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: Callable[..., nn.Module]
) -> None:
    monkeypatch.undo()  # the real registry
    torch.manual_seed(1)
    preprocessing = Preprocessing((24, 24), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    mask = np.zeros((20, 24), dtype=bool)
    mask[5:15, 5:15] = True
    model = EvaluatedModel(
        "small", small().eval(), preprocessing, "softmax", {"pit": (1,)}, "d", torch.device("cpu")
    )
    data = SampleSet("one", (Sample("a", "pit", Path("a"), "a", lambda: (pixels, mask)),), {})
    settings = Plan(
        (Method("sise", "sise", {"layers": ["features.1", "features.5", "features.8"]}),),
        MeasureSettings(names=("ebpg", "insertion", "deletion"), insertion_steps=4),
    )
    done = Evaluation(data, model, settings, tmp_path)
    done.run()
    (found,) = done.outcomes()
    assert found.status.startswith(("ok", "partial"))
    assert 0 < found.values["masks"] <= 6 + 8 + 10
    assert all(0 <= found.values[name] <= 1 for name in ("insertion", "deletion"))
    assert done.example(data.samples[0], "sise").shape == (24, 24)
    Image.fromarray(
        maps_grid(
            [
                GridRow(
                    "x",
                    preprocessing.resize(pixels),
                    fit_mask(preprocessing, mask),
                    (done.example(data.samples[0], "sise"),),
                )
            ],
            ("sise",),
        )
    )
