"""The settings digests of 0.1.0: what a plant inspected with that version stays inspected."""

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from configs.loading import load_settings
from db.columns import digest_of
from db.engine import open_database
from db.schema import Run

RECORD = Path(__file__).parent / "0.1.0"
MINIMAL = "source: {uri: pictures}\nmodel: {package: package}\n"
# Printed by 0.1.0 itself (commit b49620a), for float32 and bfloat16. They are never changed: a digest that
# differs makes every plant inspect all of its pictures again.
DIGESTS = {
    (): (
        "b2a2b64d90b13976a5d51f02d81b9fb23f28b680bf71964688141991418a1523",
        "576da98d615fd7255ddc3d42cfdb7e7f71d1627aca78005e6de7bc8c5e64cd37",
    ),
    ("source.max_pixels=5000000", "source.grey_range=[0, 4095]"): (
        "d111d0785d845ea22d330375ec9eca30ae961c759272255121925c866383491a",
        "5dea3ae20d74f309bcea6ced55b0e8a40318c8232f6000834934380591e38d19",
    ),
    (
        "explainer.method=sise",
        "explainer.mu=0.25",
        "explainer.baseline=black",
        "explainer.fusion=soft",
    ): (
        "b307a432c50e548c9af3d9d7bafb18d9ff86d93e20d1c8e606da6984d88f8638",
        "20c6badd9afa858ecd2cac0feca38b0dc6f8d4e03f399584f75f4d98f1c567a0",
    ),
    (
        "explainer.layers=[layer1, layer2]",
        "explainer.options={share: 0.1, seed: 3, exact: true, mode: mean}",
    ): (
        "9a5bdf050b977eeda32a1508d364310c57fbdbddcf3ed487ccfb901b0bcf6fb9",
        "7a618065029e12f919f941bad842a21a86936df0ee5267afc29efee068c2d774",
    ),
}


@pytest.mark.parametrize("overrides", DIGESTS)
def test_settings_of_the_first_version_have_its_digest(overrides: tuple[str, ...], tmp_path: Path) -> None:
    profile = tmp_path / "line.yaml"
    profile.write_text(MINIMAL)
    settings = load_settings(profile, overrides)
    found = tuple(digest_of(settings.decision(precision)) for precision in ("float32", "bfloat16"))
    assert found == DIGESTS[overrides]


def test_an_engine_counts_where_it_is_not_torch(tmp_path: Path) -> None:
    profile = tmp_path / "line.yaml"
    profile.write_text(MINIMAL)
    settings = load_settings(profile, ())
    assert digest_of(settings.decision("float32", "torch")) == DIGESTS[()][0]
    other = settings.decision("float32", "openvino")
    assert other == {**settings.decision("float32"), "engine": "openvino"}
    for engine in ("torch", "openvino"):  # what the settings name counts only once it is chosen
        pinned = load_settings(profile, (f"model.engine={engine}",))
        assert pinned.decision("float32") == settings.decision("float32")


def test_the_recorded_runs_have_the_digest_of_their_settings_today(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    folder.mkdir()
    for name in ("kensa.db", "kensa.yaml"):
        shutil.copy(RECORD / name, folder)
    decision = load_settings(folder / "kensa.yaml").decision("float32")
    with open_database(f"sqlite:///{folder / 'kensa.db'}") as database:
        database.migrate()
        with database.session() as session:
            runs = session.scalars(select(Run)).all()
    assert len(runs) == 2
    for run in runs:
        assert run.settings["decision"] == json.loads(json.dumps(decision))
        assert run.settings_digest == digest_of(run.settings["decision"]) == digest_of(decision)


def test_the_number_of_tiles_counts_where_pictures_are_tiled_and_it_is_not_the_default(
    tmp_path: Path,
) -> None:
    profile = tmp_path / "line.yaml"
    profile.write_text(MINIMAL)
    usual = load_settings(profile, ())
    fewer = load_settings(profile, ("explainer.max_tiles=2",))
    for settings in (usual, fewer):
        assert digest_of(settings.decision("float32")) == DIGESTS[()][0]
    assert digest_of(usual.decision("float32", tiled=True)) == DIGESTS[()][0]
    expected = fewer.decision("float32")
    expected["explainer"]["max_tiles"] = 2
    assert fewer.decision("float32", tiled=True) == expected


def test_the_size_of_a_pixel_decides_nothing(tmp_path: Path) -> None:
    profile = tmp_path / "line.yaml"
    profile.write_text(MINIMAL)
    settings = load_settings(profile, ("source.pixel_size=0.05",))
    for tiled in (False, True):
        assert digest_of(settings.decision("float32", tiled=tiled)) == DIGESTS[()][0]
