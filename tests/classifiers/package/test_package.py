from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from classifiers.errors import PackageError
from classifiers.package import manifest
from classifiers.package.network import create_network
from classifiers.package.package import (
    ModelPackage,
    build_model,
    load_package,
    restore_package,
    save_package,
)
from classifiers.package.precisions import ReducedPrecision, thresholds_in_force
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.thresholds import Thresholds
from classifiers.package.tiling import Tiling

MakePackage = Callable[..., ModelPackage]


@pytest.fixture
def copy(package: ModelPackage, tmp_path: Path) -> Path:
    shutil.copytree(package.path, tmp_path / "copy")
    return tmp_path / "copy"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None], *, digest: bool = True) -> None:
    """Change model.json; with digest, the way a careful forger would."""
    file = folder / "model.json"
    content = json.loads(file.read_text())
    change(content)
    if digest:
        content["digest"] = manifest.digest(content)
    file.write_text(json.dumps(content))


def test_round_trip(make_package: MakePackage, tmp_path: Path, zones: Thresholds) -> None:
    when = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    saved = make_package(
        tmp_path / "deep" / "model",
        temperature=1.5,
        thresholds=zones,
        training={"command": "kensa train", "metrics": {"auroc": 0.9}},
        created_at=when,
    )
    assert load_package(saved.path) == saved
    assert saved.classes == ("good", "line", "spot")
    assert saved.good_index == 0
    assert saved.activation == "softmax"
    assert saved.temperature == 1.5
    assert saved.thresholds == zones
    assert saved.training["metrics"] == {"auroc": 0.9}
    assert saved.created_at == when
    assert sorted(path.name for path in saved.path.iterdir()) == ["model.json", "model.safetensors"]
    assert [path.name for path in saved.path.parent.iterdir()] == ["model"]  # nothing temporary left


def test_precisions_are_in_the_package_where_there_are_any(
    make_package: MakePackage, tmp_path: Path, zones: Thresholds
) -> None:
    when = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    reduced = ReducedPrecision(
        "float16",
        "torch",
        "cuda",
        replace(zones, review=0.3),
        ((0.5, 1.0, 2.0), (1.0, 2.0, 3.0)),
        2,
        0.01,
        0.1,
    )
    plain = make_package(tmp_path / "plain", thresholds=zones, created_at=when)
    assert "reduced" not in json.loads((plain.path / "model.json").read_text())
    saved = make_package(tmp_path / "model", thresholds=zones, created_at=when, reduced=[reduced])
    assert load_package(saved.path) == saved
    assert saved.digest != plain.digest
    assert saved.reduced_to("torch", "float16") == reduced
    assert saved.reduced_to("torch", "bfloat16") is saved.reduced_to("openvino", "float16") is None

    def altered(**changes: object) -> Path:
        folder = tmp_path / "altered"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(saved.path, folder)

        def change(content: dict[str, Any]) -> None:
            content["reduced"][0] |= changes

        rewrite(folder, change)
        return folder

    for changes, message in (
        ({"precision": "float32"}, "reduced.precision must be one of"),
        ({"engine": ""}, "reduced.engine must be text"),
        ({"flips": -1}, "reduced.flips must be a count"),
        ({"score_shift": 1.5}, "reduced.score_shift must be a number from 0 to 1"),
        ({"parity": [[1.0]]}, "reduced must be objects with parity, a list of rows of 3 numbers"),
        ({"thresholds": None}, "reduced must be objects with thresholds"),
        ({"mood": 1}, "unexpected keyword argument 'mood'"),
    ):
        with pytest.raises(PackageError, match=message):
            load_package(altered(**changes))

    def change(content: dict[str, Any]) -> None:
        content["reduced"] *= 2

    rewrite(saved.path, change)
    with pytest.raises(PackageError, match="one entry for an engine and precision"):
        load_package(saved.path)


def test_tiling_is_in_the_package_where_there_is_any(make_package: MakePackage, tmp_path: Path) -> None:
    when = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    plain = make_package(tmp_path / "plain", created_at=when)
    assert "tiling" not in json.loads((plain.path / "model.json").read_text())
    tiled = make_package(tmp_path / "tiled", created_at=when, tiling=Tiling(2.0, overlap=8, highest=3))
    assert load_package(tiled.path) == tiled
    assert tiled.tiling == Tiling(2.0, overlap=8, highest=3)
    assert tiled.digest != plain.digest
    for value, message in (
        ({"scale": 0}, "tiling.scale must be a number from 1/64 to 64"),
        ({"overlap": 1000}, "tiling.overlap must be at most half of the tile's shorter side"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ([], "tiling must be an object"),
    ):
        folder = tmp_path / "altered"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiled.path, folder)
        rewrite(folder, lambda content, value=value: content.update(tiling=value))
        with pytest.raises(PackageError, match=message):
            load_package(folder)


def test_the_thresholds_in_force_are_those_of_the_run(zones: Thresholds) -> None:
    other = replace(zones, review=0.3)
    entry = {"precision": "float16", "engine": "torch", "thresholds": asdict(other)}
    card = {"thresholds": asdict(zones), "reduced": [entry]}
    assert thresholds_in_force(card, {"precision": "float16"}) == other
    assert thresholds_in_force(card, {"precision": "float32"}) == zones
    assert thresholds_in_force(card, {"precision": "float16", "engine": "openvino"}) == zones
    assert thresholds_in_force({"thresholds": asdict(zones)}, {"precision": "float16"}) == zones


def test_a_package_comes_back_from_its_files(package: ModelPackage, tmp_path: Path) -> None:
    files = [(package.path / name).read_bytes() for name in ("model.json", "model.safetensors")]
    again = restore_package(tmp_path / "deep" / "again", *files)
    assert again.digest == package.digest
    assert [(again.path / name).read_bytes() for name in ("model.json", "model.safetensors")] == files
    with pytest.raises(PackageError, match="exists already"):
        restore_package(again.path, *files)
    with pytest.raises(PackageError, match="not the ones that were validated"):
        restore_package(tmp_path / "other", files[0], files[1] + b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


def test_same_content_same_digest(make_package: MakePackage, tmp_path: Path) -> None:
    when = datetime(2026, 11, 23, tzinfo=UTC)
    one, two = (make_package(tmp_path / name, created_at=when) for name in ("one", "two"))
    assert one.digest == two.digest
    assert (one.path / "model.json").read_bytes() == (two.path / "model.json").read_bytes()
    other = make_package(tmp_path / "three", created_at=when, temperature=1.1)
    assert other.digest != one.digest
    assert other.weights_sha256 == one.weights_sha256


def test_digest_is_over_canonical_json(package: ModelPackage) -> None:
    content = json.loads((package.path / "model.json").read_text())
    stated = content.pop("digest")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert stated == package.digest == hashlib.sha256(text.encode()).hexdigest()


def test_changed_weights_are_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(PackageError, match="not the ones that were validated"):
        load_package(copy)


def test_weights_changed_after_loading_are_refused(copy: Path) -> None:
    loaded = load_package(copy)
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(PackageError, match="changed since"):
        build_model(loaded)


@pytest.mark.parametrize(
    "field", ["temperature", "classes", "thresholds", "training", "parity", "created_at"]
)
def test_any_changed_field_breaks_the_digest(copy: Path, field: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content[field] = None

    rewrite(copy, change, digest=False)
    with pytest.raises(PackageError, match="changed after writing"):
        load_package(copy)


@pytest.mark.parametrize("name", ["model.pt", "weights.PTH", "pytorch_model.bin", "sub/x.pkl", "old.ckpt"])
def test_foreign_weights_beside_are_refused(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(pickle.dumps({}))
    with pytest.raises(PackageError, match="only model"):
        load_package(copy)


def test_a_model_card_beside_is_fine(copy: Path) -> None:
    (copy / "MODEL_CARD.md").write_text("# card")
    load_package(copy)


def test_pointing_at_a_file_or_nothing_is_refused(tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(pickle.dumps({}))
    with pytest.raises(PackageError, match="the folder, not a weights file"):
        load_package(pickled)
    with pytest.raises(PackageError, match="no model package"):
        load_package(tmp_path / "absent")
    with pytest.raises(PackageError, match=r"model\.json"):
        load_package(tmp_path)


def test_a_pickle_named_safetensors_is_never_unpickled(copy: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    data = pickle.dumps(Bomb())
    (copy / "model.safetensors").write_bytes(data)
    rewrite(copy, lambda content: content.update(weights_sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(PackageError, match="its header"):
        build_model(load_package(copy))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_link_out_of_the_folder_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    with pytest.raises(PackageError, match="regular file inside"):
        load_package(copy)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", 2, "schema 2 is unknown"),
        ("schema", True, "schema True is unknown"),
        ("task", "ranking", "task must be one of"),
        ("classes", ["good"], "at least two"),
        ("classes", ["good", "good", "spot"], "distinct"),
        ("classes", "good", "list of texts"),
        ("good_class", "fine", "one of the classes"),
        ("temperature", 0, "positive"),
        ("temperature", "1", "must be a number"),
        ("temperature", True, "must be a number"),
        ("parity", [[1.0]], "rows of 3 numbers"),
        ("parity", [], "list of rows"),
        ("created_at", "2026-11-23T10:00:00", "time zone"),
        ("created_at", "yesterday", "ISO 8601"),
        ("preprocessing", {"input_size": [32, 32], "crop": 0.9}, "crop"),
        ("preprocessing", {"input_size": [0, 32]}, "input_size"),
        ("thresholds", {"review": 0.1}, "missing"),
        ("model_args", [], "must be an object"),
        ("surprise", 1, "missing or unknown: surprise"),
    ],
)
def test_content_that_breaks_the_schema_is_refused(
    copy: Path, field: str, value: object, message: str
) -> None:
    rewrite(copy, lambda content: content.update({field: value}))
    with pytest.raises(PackageError, match=message):
        load_package(copy)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", "9" * 5_000, "9999999999… is not a number a package may hold"),
        ("temperature", "9" * 41, "is not a number"),
        ("parity", "[[" + "9" * 400 + ", 0, 0]]", "is not a number"),
        ("training", "[" * 60 + "]" * 60, "more than 50 lists and objects in one another"),
        ("training", '{"a": ' * 60 + "1" + "}" * 60, "more than 50 lists and objects in one another"),
        ("good_class", '"\\ud800"', "half a surrogate pair"),
        ("created_at", '"0001-01-01T00:00:00+14:00"', "created_at must be an ISO 8601 time"),
        ("created_at", '"' + "9" * 10_000_000 + '"', "created_at must be an ISO 8601 time"),
        ("preprocessing", '{"input_size": [1000000000, 1000000000]}', "input_size must be"),
        ("preprocessing", '{"input_size": [4097, 4096]}', "at most 16777216 together"),
        ("preprocessing", '{"input_size": 32}', "input_size must be"),
        ("preprocessing", '{"input_size": [32, 32], "mean": "abc"}', "mean must be three numbers"),
        ("preprocessing", '{"input_size": [32, 32], "mean": [null, 0, 0]}', "mean must be three numbers"),
        ("preprocessing", '{"input_size": [32, 32], "std": ["a", "b", "c"]}', "std must be three numbers"),
        ("preprocessing", '{"input_size": [32, 32], "fit": {"pad": 1}}', "fit must be one of"),
        ("preprocessing", '{"input_size": [32, 32], "interpolation": {"a": 1}}', "interpolation must be one"),
        ("thresholds", "[0.1, 0.9]", "thresholds must be an object or null"),
    ],
)
def test_hostile_values_are_refused_in_few_words(copy: Path, field: str, value: str, message: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content[field] = "HERE"

    rewrite(copy, change, digest=False)
    file = copy / "model.json"
    text = file.read_text().replace('"HERE"', value)
    with contextlib.suppress(ValueError):  # a digest of what json.loads does not read cannot be computed
        content = json.loads(text)
        text = text.replace(content["digest"], manifest.digest(content))
    file.write_text(text)
    with pytest.raises(PackageError, match=message) as caught:
        load_package(copy)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(copy: Path, number: str) -> None:
    file = copy / "model.json"
    file.write_text(file.read_text().replace('"temperature": 2.0', f'"temperature": {number}'))
    with pytest.raises(PackageError, match="not a number"):
        load_package(copy)


def test_a_key_twice_and_no_json_are_refused(copy: Path) -> None:
    file = copy / "model.json"
    text = file.read_text()
    file.write_text(text.replace('"temperature": 2.0', '"temperature": 2.0, "temperature": 1.0'))
    with pytest.raises(PackageError, match="twice"):
        load_package(copy)
    for content in ("{", "[]", "[" * 100_000, '"model"'):
        file.write_text(content)
        with pytest.raises(PackageError, match=r"JSON"):
            load_package(copy)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(PackageError, match="UTF-8"):
        load_package(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"review": 0.8},
        {"review": float("nan")},
        {"escape_rate": 1.5},
        {"n_missed": 1.0},
        {"n_good": -1},
        {"dataset_digest": 3},
        {"review": None},
        {"overkill_rate": None},  # of 59 good pictures there is a rate
        {"target_overkill": "none"},
    ],
)
def test_thresholds_are_checked(zones: Thresholds, changes: dict[str, Any]) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(zones, **changes)


def test_thresholds_that_rest_on_no_good_picture(zones: Thresholds) -> None:
    from dataclasses import replace

    rates = ("overkill_rate", "overkill_bound", "reject_overkill_rate", "reject_overkill_bound")
    blind = replace(zones, n_good=0, n_flagged_good=0, target_overkill=None, **dict.fromkeys(rates))
    assert blind.overkill_rate is None
    with pytest.raises(ValueError, match=r"overkill_rate is 0\.0, of 0 good pictures"):
        replace(blind, overkill_rate=0.0)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:/tmp", "no_such_net", "", "../resnet18"])
def test_only_timms_own_names_are_built(name: str) -> None:
    with pytest.raises(PackageError, match="is not a model of timm"):
        create_network(name, {}, 2)


@pytest.mark.parametrize(
    "key", ["checkpoint_path", "pretrained", "pretrained_cfg", "num_classes", "features_only"]
)
def test_model_args_cannot_name_other_weights(key: str) -> None:
    with pytest.raises(PackageError, match=key):
        create_network("test_efficientnet", {key: "x"}, 2)


def test_unfit_model_args_are_an_error_of_the_package() -> None:
    with pytest.raises(PackageError, match="timm cannot build"):
        create_network("test_efficientnet", {"no_such_argument": 1}, 2)


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"block": "x"}, "model_args"),
        ({"layers": [100_000, 2, 2, 2]}, "larger than the weights"),
        ({"layers": [10**9, 2, 2, 2]}, "may not hold a number above"),
        ({"layers": "2222"}, "model_args"),
        ({"stem_width": 900_000}, "larger than the weights"),
        ({"act_layer": "no"}, "model_args"),
        ({"norm_layer": ["a"]}, "model_args"),
        ({"block_args": {"attn_layer": 5}}, "model_args"),
    ],
)
def test_model_args_build_nothing_larger_than_the_weights(
    tmp_path: Path, model_args: dict[str, Any], message: str
) -> None:
    network = create_network("test_resnet", {}, 2)
    saved = save_package(
        tmp_path / "model",
        network,
        architecture="test_resnet",
        model_args={},
        classes=("good", "bad"),
        good_class="good",
        task="single-label",
        preprocessing=Preprocessing((32, 32)),
    )
    rewrite(saved.path, lambda content: content.update(model_args=model_args))
    loaded = load_package(saved.path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PackageError, match=message) as caught:
        build_model(loaded)
    # In KiB: the most that this process has ever had.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10
    assert str(saved.path / "model.json") in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_bound_lets_every_kind_of_network_be_built(tmp_path: Path) -> None:
    for architecture in ("test_resnet", "test_efficientnet", "test_vit", "test_nfnet", "test_convnext"):
        torch.manual_seed(5)
        network = create_network(architecture, {}, 2)
        torch.manual_seed(5)
        bounded = create_network(architecture, {}, 2, weights=network.state_dict())
        for name, tensor in bounded.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), (architecture, name)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[8,4]}}',
        b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b"[" * 100_000,
        b"{",
        b"",
    ],
)
@pytest.mark.parametrize("length", [None, 5 * 2**20, 2**63])
def test_a_header_that_claims_too_much_is_refused(copy: Path, header: bytes, length: int | None) -> None:
    data = (len(header) if length is None else length).to_bytes(8, "little") + header + b"\0" * 4
    (copy / "model.safetensors").write_bytes(data)
    rewrite(copy, lambda content: content.update(weights_sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(PackageError, match=r"model\.safetensors: its header") as caught:
        build_model(load_package(copy))
    assert len(str(caught.value)) < 1000


def test_a_package_is_never_overwritten(package: ModelPackage, make_package: MakePackage) -> None:
    before = (package.path / "model.json").read_bytes()
    with pytest.raises(PackageError, match="never overwritten"):
        make_package(package.path)
    assert (package.path / "model.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"loss": float("nan")}},
        {"training": {"when": datetime(2026, 1, 1, tzinfo=UTC)}},
        {"temperature": -1.0},
        {"classes": ("good", "line")},
        {"good_class": "absent"},
    ],
)
def test_a_refused_package_leaves_nothing_behind(
    make_package: MakePackage, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(PackageError):
        make_package(tmp_path / "model", **changes)
    assert list(tmp_path.iterdir()) == []


def test_saving_leaves_the_model_as_it_was(tmp_path: Path, package: ModelPackage) -> None:
    network = build_model(package).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_package(
        tmp_path / "model",
        network,
        architecture=package.architecture,
        model_args={},
        classes=package.classes,
        good_class="good",
        task="single-label",
        preprocessing=package.preprocessing,
    )
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_importing_the_room_is_light() -> None:
    """A bare GPU machine has torch, torchvision, timm, safetensors, numpy and Pillow."""
    code = (
        "import sys, classifiers.training.train\n"
        "import classifiers.measure.calibrate, classifiers.measure.evaluation\n"
        "heavy = {'scipy', 'torchmetrics', 'prefect', 'sqlalchemy', 'pydantic', 'fastapi', 'rich', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
