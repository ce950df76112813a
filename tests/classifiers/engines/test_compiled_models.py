"""The cache of compiled models: private, whole, bounded, and never a reason to stop."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from classifiers.engines import compiled_models, openvino_engine
from classifiers.engines.compiled_models import (
    cache_folder,
    discard_compiled,
    keep_compiled,
    load_compiled,
)
from classifiers.package.package import ModelPackage
from classifiers.predict import Predictor
from tests.classifiers.engines.networks import other_network

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled_models, "_told", set())


def test_what_is_kept_comes_back_and_is_private() -> None:
    assert load_compiled(KEY) is None
    keep_compiled(KEY, b"model")
    assert load_compiled(KEY) == b"model"
    assert load_compiled(OTHER) is None
    folder = cache_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [(file.name, file.stat().st_mode & 0o777) for file in folder.iterdir()] == [(KEY, 0o600)]
    keep_compiled(KEY, b"another")
    assert load_compiled(KEY) == b"another"
    discard_compiled(KEY)
    assert list(folder.iterdir()) == []


def test_the_folder_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache" / "kensa" / "engines"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        monkeypatch.setenv("HOME", "/home/somebody")
        assert cache_folder() == Path("/home/somebody/.cache/kensa/engines")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_damaged_file_is_thrown_away(damage, caplog: pytest.LogCaptureFixture) -> None:
    keep_compiled(KEY, b"model")
    file = cache_folder() / KEY
    file.write_bytes(damage(file.read_bytes()))
    assert load_compiled(KEY) is None
    assert not file.exists()
    assert "is damaged, and is made anew" in caplog.text


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    keep_compiled(KEY, b"model")
    file = cache_folder() / KEY
    planted = file.rename(tmp_path / "planted")
    file.symlink_to(planted)
    assert load_compiled(KEY) is None
    assert not file.is_symlink()
    os.mkfifo(file)  # which would be waited for
    assert load_compiled(KEY) is None
    assert planted.exists()


@pytest.mark.parametrize("wrong", ["open", "foreign", "link", "file", "read-only"])
def test_a_folder_that_is_not_private_is_not_used(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep_compiled(KEY, b"planted")
    folder = cache_folder()
    if wrong == "open":
        folder.chmod(0o770)
        told = "chmod 700"
    elif wrong == "foreign":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        told = "belongs to another account"
    elif wrong == "link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
        told = str(folder)
    elif wrong == "file":
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("")
        told = str(folder)
    else:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(folder))

        monkeypatch.setattr(Path, "mkdir", refuse)
        told = "Permission denied"
    for _ in range(2):
        assert load_compiled(KEY) is None
        keep_compiled(KEY, b"ours")
    assert caplog.text.count("compiled models are not kept") == 1
    assert told in caplog.text


def test_a_file_of_another_account_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_compiled(KEY, b"planted")
    real = os.fstat

    def foreign(file: int) -> os.stat_result:
        found = real(file)
        return found if found.st_mode & 0o040000 else os.stat_result((*found[:4], 4711, *found[5:]))

    monkeypatch.setattr(os, "fstat", foreign)
    assert load_compiled(KEY) is None
    assert not (cache_folder() / KEY).exists()


def test_no_home_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    keep_compiled(KEY, b"model")
    assert load_compiled(KEY) is None


def test_the_oldest_go_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_models, "MOST_MODELS", 3)
    names = [f"{number:064x}" for number in range(5)]
    for age, name in enumerate(names[:3]):
        keep_compiled(name, b"model")
        os.utime(cache_folder() / name, (age, age))
    (cache_folder() / "left.part").write_bytes(b"by a process that was killed")
    os.utime(cache_folder() / "left.part", (0, 0))
    assert load_compiled(names[0]) == b"model"  # used: it is the newest now
    keep_compiled(names[3], b"model")
    assert sorted(file.name for file in cache_folder().iterdir()) == [names[0], names[2], names[3]]
    monkeypatch.setattr(compiled_models, "MOST_BYTES", 100)
    keep_compiled(names[4], b"x" * 60)
    assert [file.name for file in cache_folder().iterdir()] == [names[4]]


def test_a_full_disk_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    keep_compiled(KEY, b"model")
    assert list(cache_folder().iterdir()) == []
    assert "No space left" in caplog.text


@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is absent")
def test_the_second_start_traces_nothing(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.rand(3, 3, 32, 32)
    first = Predictor(package, device="cpu", engine="openvino").engine(batch)
    (file,) = cache_folder().iterdir()
    traced = []
    real = openvino_engine._converted_model
    monkeypatch.setattr(openvino_engine, "_converted_model", lambda *given: traced.append(1) or real(*given))
    assert torch.equal(Predictor(package, device="cpu", engine="openvino").engine(batch), first)
    assert traced == []
    # Whole, and yet no model of this OpenVINO: made anew.
    keep_compiled(file.name, b"not a model")
    assert torch.equal(Predictor(package, device="cpu", engine="openvino").engine(batch), first)
    assert traced == [1]
    assert load_compiled(file.name) != b"not a model"


@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is absent")
def test_a_kept_model_that_answers_differently_is_made_anew(
    package: ModelPackage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = torch.rand(3, 3, 32, 32)
    first = Predictor(package, device="cpu", engine="openvino").engine(batch)
    (own,) = cache_folder().iterdir()
    another = other_network(package, package.architecture, tmp_path / "other")
    Predictor(another, device="cpu", engine="openvino")
    (other,) = set(cache_folder().iterdir()) - {own}
    planted = load_compiled(other.name)
    assert planted is not None
    keep_compiled(own.name, planted)
    assert torch.equal(Predictor(package, device="cpu", engine="openvino").engine(batch), first)
    assert "differ from the validated ones" in caplog.text
    assert load_compiled(own.name) != planted
