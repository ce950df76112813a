"""What a replay is compared by, on figures made by hand."""

import io
from dataclasses import fields, replace
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from db.artifacts import ArtifactRef
from db.columns import uuid7
from db.inspection.outcomes import ExplainedTile, ExplanationOutcome, FindingOutcome, ImageOutcome, LayerMasks
from db.queries.finding_records import ExplanationRecord, TileRecord
from db.queries.replays import RecordedFinding, RecordedPrediction
from operations.inspection.map_files import encode_map
from operations.replay.compare import TOLERANCES, compare


def _map(*values: float) -> tuple[str, bytes]:
    data = encode_map(np.array([values], np.float32))
    return sha256(data).hexdigest(), data


RAMP = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
RAMP_DIGEST, RAMP_BYTES = _map(*RAMP)


def recorded_prediction(**changed) -> RecordedPrediction:
    explanation = ExplanationRecord(
        method="sise",
        parameters={"mu": 0, "layers": None},
        layers=(LayerMasks("layer1", 10, 100),),
        status="ok",
        masked_score=0.7,
        drop=22.0,
        increase=False,
        map_digest=RAMP_DIGEST,
        block_maps=(("layer1", RAMP_DIGEST),),
        box=(10, 10, 50, 50),
    )
    explanation = replace(explanation, **changed.pop("explanation", {}))
    finding = RecordedFinding("R000001-0001", "pit", 0.9, 0.9, 0.3, explanation)
    return RecordedPrediction(
        **{
            "id": uuid7(),
            "uri": "a.png",
            "run_id": uuid7(),
            "run_reference": "R000001",
            "settings": {},
            "settings_digest": "",
            "model": None,
            "image_digest": "d" * 64,
            "size": 7,
            "width": 100,
            "height": 80,
            "format": "PNG",
            "mode": "L",
            "verdict": "reject",
            "reason": None,
            "score": 0.9,
            "review_threshold": 0.3,
            "reject_threshold": 0.6,
            "probabilities": (0.1, 0.9),
            "findings": (finding,),
            "picture_kept": True,
            "retention": {},
            **changed,
        }
    )


def replayed_outcome(**changed) -> ImageOutcome:
    ref = ArtifactRef(changed.pop("map", RAMP_DIGEST), "map", "image/png", 1)
    explanation = ExplanationOutcome(
        method="sise",
        parameters={"mu": 0.0, "layers": None},
        layers=(LayerMasks("layer1", 10, 100),),
        status="ok",
        masked_score=0.7,
        drop=22.0,
        increase=False,
        map=ref,
        block_maps=(("layer1", replace(ref, digest=RAMP_DIGEST)),),
        box=(10, 10, 50, 50),
    )
    explanation = replace(explanation, **changed.pop("explanation", {}))
    finding = FindingOutcome(class_name="pit", class_score=0.9, threshold=0.3, explanation=explanation)
    outcome = ImageOutcome(
        uri="a.png",
        version="",
        size=7,
        digest="d" * 64,
        verdict="reject",
        width=100,
        height=80,
        format="PNG",
        mode="L",
        score=0.9,
        review_threshold=0.3,
        reject_threshold=0.6,
        probabilities=(0.1, 0.9),
        findings=(finding,),
    )
    return replace(outcome, **changed)


def compared(recorded=None, replayed=None, maps=None, lost: str = ""):
    def stored(_):
        if lost:
            raise LookupError(lost)
        return RAMP_BYTES

    return compare(
        recorded or recorded_prediction(),
        replayed or replayed_outcome(),
        maps or {},
        stored,
        TOLERANCES["float32"],
    )


def test_the_same_is_identical():
    found = compared()
    assert (found.result, found.differences) == ("identical", [])
    assert (found.probability, found.map, found.rank) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("changed", "result", "fields"),
    [
        ({"probabilities": (0.10005, 0.89995)}, "equal", ["probabilities"]),
        ({"probabilities": (0.1002, 0.8998)}, "different", ["probabilities"]),
        ({"probabilities": (0.1, 0.5, 0.4)}, "different", ["probabilities"]),
        ({"score": 0.90009}, "equal", ["score", "R000001-0001 score"]),
        ({"verdict": "review"}, "different", ["verdict"]),
        ({"width": 101}, "different", ["width"]),
        ({"width": None}, "identical", []),
        ({"review_threshold": 0.30001}, "different", ["review threshold"]),
        ({"findings": ()}, "different", ["flagged classes"]),
        (
            {"explanation": {"parameters": {"mu": 0.1, "layers": None}}},
            "different",
            ["R000001-0001 parameters"],
        ),
        ({"explanation": {"status": "partial: x"}}, "different", ["R000001-0001 status"]),
        ({"explanation": {"masked_score": 0.705}}, "equal", ["R000001-0001 masked score"]),
        ({"explanation": {"masked_score": None}}, "different", ["R000001-0001 masked score"]),
        ({"explanation": {"drop": 23.0}}, "equal", ["R000001-0001 drop"]),
        ({"explanation": {"drop": 24.0}}, "different", ["R000001-0001 drop"]),
        ({"explanation": {"increase": True}}, "different", ["R000001-0001 increase"]),
        ({"explanation": {"box": (12, 10, 50, 55)}}, "equal", ["R000001-0001 box"]),
        ({"explanation": {"box": (10, 10, 50, 56)}}, "different", ["R000001-0001 box"]),
        ({"explanation": {"box": None}}, "different", ["R000001-0001 box"]),
        (
            {"explanation": {"layers": (LayerMasks("layer1", 12, 100),)}},
            "equal",
            ["R000001-0001 masks of layer1"],
        ),
        (
            {"explanation": {"layers": (LayerMasks("layer1", 13, 100),)}},
            "different",
            ["R000001-0001 masks of layer1"],
        ),
        ({"explanation": {"block_maps": ()}}, "different", ["R000001-0001 block maps"]),
        ({"explanation": {"map": None}}, "different", ["R000001-0001 map"]),
    ],
)
def test_each_field_has_its_measure(changed, result, fields):
    found = compared(replayed=replayed_outcome(**changed))
    assert (found.result, [difference.field for difference in found.differences]) == (result, fields)


TILE = TileRecord(
    rectangle=(0, 0, 40, 40),
    score=0.9,
    layers=(LayerMasks("layer1", 10, 100),),
    status="ok",
    masked_score=0.7,
    drop=22.0,
    increase=False,
    map_digest=RAMP_DIGEST,
    block_maps=(("layer1", RAMP_DIGEST),),
    box=(10, 10, 20, 20),
)
OTHER_TILE = replace(TILE, rectangle=(60, 40, 100, 80), score=0.8, box=(70, 50, 80, 60))


def explained_tile(tile: TileRecord, **changed) -> ExplainedTile:
    """Return what a replay says of a tile: what is recorded of it, but for what changed."""
    values = {field.name: getattr(tile, field.name) for field in fields(tile)}
    values["map"] = ArtifactRef(values.pop("map_digest"), "map", "image/png", 1)
    values["block_maps"] = tuple((name, values["map"]) for name, _ in values["block_maps"])
    return ExplainedTile(**{**values, **changed})


def tiled(changed=None, *, tiles=(TILE, OTHER_TILE), again=None, explanation=None, maps=None):
    """Compare a tiled picture's record with its replay."""
    nothing = {"layers": (), "block_maps": (), "tiles_left_out": 0}
    decided = {"tile_count": 6, "deciding_tile": TILE.rectangle}
    recorded = recorded_prediction(explanation={**nothing, "map_digest": None, "tiles": tiles}, **decided)
    replayed = replayed_outcome(
        explanation={
            **nothing,
            "map": None,
            "tiles": tuple(map(explained_tile, tiles)) if again is None else again,
            **(explanation or {}),
        },
        **{**decided, **(changed or {})},
    )
    return compared(recorded, replayed, maps)


@pytest.mark.parametrize(
    ("changed", "result", "names"),
    [
        ({}, "identical", []),
        ({"changed": {"tile_count": 7}}, "different", ["number of tiles"]),
        ({"changed": {"deciding_tile": (1, 0, 41, 40)}}, "different", ["deciding tile"]),
        ({"explanation": {"tiles_left_out": 1}}, "equal", ["tiles left out"]),
        ({"explanation": {"tiles_left_out": 2}}, "different", ["tiles left out"]),
        ({"explanation": {"tiles": None}}, "different", ["explained tiles"]),
        ({"again": (explained_tile(TILE),)}, "different", ["explained tiles"]),
        ({"again": (explained_tile(OTHER_TILE), explained_tile(TILE))}, "identical", []),
        ({"explanation": {"box": (11, 10, 50, 52)}}, "equal", ["box"]),  # of a tile of 40 pixels
        ({"explanation": {"box": (13, 10, 50, 50)}}, "different", ["box"]),
        (
            {"again": (explained_tile(TILE, score=0.90005), explained_tile(OTHER_TILE))},
            "equal",
            ["tile 0,0 score"],
        ),
        (
            {"again": (explained_tile(TILE), explained_tile(OTHER_TILE, masked_score=0.72))},
            "different",
            ["tile 60,40 masked score"],
        ),
        (
            {"again": (explained_tile(TILE, status="partial: x"), explained_tile(OTHER_TILE))},
            "different",
            ["tile 0,0 status"],
        ),
        (
            {"again": (explained_tile(TILE, box=None), explained_tile(OTHER_TILE))},
            "different",
            ["tile 0,0 box"],
        ),
    ],
)
def test_each_tile_is_compared_with_the_one_at_its_place(changed, result, names):
    found = tiled(**changed)
    expected = [
        name if name in ("number of tiles", "deciding tile") else f"R000001-0001 {name}" for name in names
    ]
    assert (found.result, [difference.field for difference in found.differences]) == (result, expected)


def test_of_tiles_as_strong_as_each_other_another_may_be_explained():
    near = replace(OTHER_TILE, rectangle=(0, 40, 40, 80), score=0.80005)
    found = tiled(again=(explained_tile(TILE), explained_tile(near)))
    assert [(each.field, each.within) for each in found.differences] == [
        ("R000001-0001 explained tiles", True)
    ]


def test_maps_of_tiles_are_compared_by_their_pixels():
    digest, data = _map(*reversed(RAMP))
    swapped = explained_tile(OTHER_TILE, map=ArtifactRef(digest, "map", "image/png", 1))
    found = tiled(again=(explained_tile(TILE), swapped), maps={digest: data})
    assert (found.result, found.map, found.rank) == ("different", 1.0, -1.0)
    assert [difference.field for difference in found.differences] == ["R000001-0001 tile 60,40 map"]


@pytest.mark.parametrize(
    ("values", "result", "apart", "rank"),
    [
        ((0.0, 0.2, 0.4, 0.6, 0.8005, 1.0), "equal", 0.0005, 1.0),
        ((0.0, 0.2, 0.4, 0.6, 0.9, 1.0), "equal", 0.1, 1.0),  # the order of the pixels is the same
        ((1.0, 0.8, 0.6, 0.4, 0.2, 0.0), "different", 1.0, -1.0),
        # two neighbours exchanged: 1 - 6 * 2 / (6 * 35)
        ((0.2, 0.0, 0.4, 0.6, 0.8, 1.0), "different", 0.2, 1 - 12 / 210),
        ((0.5,) * 6, "different", 0.5, None),
    ],
)
def test_maps_are_compared_by_their_pixels(values, result, apart, rank):
    digest, data = _map(*values)
    found = compared(replayed=replayed_outcome(map=digest), maps={digest: data})
    assert found.result == result
    assert [difference.field for difference in found.differences] == ["R000001-0001 map"]
    assert found.map == pytest.approx(apart, abs=2e-5)
    assert found.rank == (pytest.approx(rank, abs=1e-6) if rank is not None else 1.0)


def test_a_map_packed_otherwise_is_the_same():
    picture, buffer = Image.open(io.BytesIO(RAMP_BYTES)), io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=0)
    assert buffer.getvalue() != RAMP_BYTES
    digest = sha256(buffer.getvalue()).hexdigest()
    found = compared(replayed=replayed_outcome(map=digest), maps={digest: buffer.getvalue()})
    assert (found.result, found.map, found.rank) == ("identical", 0.0, 1.0)


def test_a_map_that_is_gone_can_only_be_compared_by_digest():
    assert compared(lost="it was pruned").result == "identical"
    digest, data = _map(0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    found = compared(replayed=replayed_outcome(map=digest), maps={digest: data}, lost="it was pruned")
    assert found.result == "impossible"
    assert found.unknown == ["R000001-0001 map has another digest, and it was pruned"]
    worse = compared(
        replayed=replayed_outcome(map=digest, verdict="review"), maps={digest: data}, lost="it was pruned"
    )
    assert worse.result == "different"
