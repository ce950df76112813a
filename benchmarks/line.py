"""A synthetic inspection line for the database benchmarks: outcomes as the flow records them.

The number of a picture decides its outcome. Of 100 pictures 95 pass, 2 are for review, 2 are rejected, and 1
cannot be read. The 4 flagged pictures are stored and have 5 findings, each with its explanation, map and
three block maps. A part has two pictures, a lot 500 parts; there are four stations.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from db.artifacts import ArtifactRef
from db.chain.events import Actor, Entry, NewRow
from db.columns import digest_of, utc_now, uuid7
from db.dispositions.decide import dispose
from db.engine import Database
from db.inspection.outcomes import ExplanationOutcome, FindingOutcome, ImageOutcome, LayerMasks
from db.inspection.runs import ModelRecord, RunHandle, register_model, start_or_resume_run
from db.people.people import Authenticated, add_person, list_people
from db.people.sign_in import authenticate
from db.schema import Prediction

BATCH = 256
CLASSES = ("good", "blowhole", "break", "crack", "fray", "uneven")
INSPECTOR = Actor("inspector")
SETTINGS = {
    "run": {"source": "line-1", "batch": BATCH},
    "explain": {"method": "sise", "parameters": {"mu": 0.0, "batch_size": 16}},
}
_FLAGGED = {13: "unreadable", 27: "review", 52: "reject", 71: "review", 96: "reject"}
_BEGINNING = datetime(2026, 1, 5, 6, tzinfo=UTC)


def digest(kind: str, number: int) -> str:
    """Return a SHA-256 (hex) in place of that of the thing's bytes."""
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def verdict(number: int) -> str:
    """Return the verdict on picture `number`."""
    return _FLAGGED.get(number % 100, "pass")


def outcome(number: int) -> ImageOutcome:
    """Return the outcome of picture `number`."""
    what = verdict(number)
    chance = random.Random(number)  # noqa: S311
    part, side = divmod(number, 2)
    lot = part // 500
    given: dict[str, Any] = {
        "uri": f"s3://line-1/2026/L{lot:05d}/P{part:07d}/{'top' if side else 'bottom'}.png",
        "version": f"{digest('etag', number)[:32]}",
        "size": 180_000 + chance.randrange(60_000),
        "part": f"P{part:07d}",
        "lot": f"L{lot:05d}",
        "station": f"cam-{number % 4 + 1}",
        "captured_at": _BEGINNING + timedelta(seconds=number, microseconds=chance.randrange(1_000_000)),
        "digest": digest("picture", number),
        "verdict": what,
        "format": "PNG",
    }
    if what == "unreadable":
        return ImageOutcome(**given, reason="image file is truncated (31 bytes not processed)")
    score = {"pass": 0.01, "review": 0.35, "reject": 0.72}[what] + chance.random() * 0.25
    rest = [chance.random() for _ in CLASSES[1:]]
    whole = sum(rest)
    picture = ArtifactRef(given["digest"], "picture", "image/png", given["size"])
    return ImageOutcome(
        **given,
        width=448,
        height=448,
        mode="L",
        score=score,
        review_threshold=0.3125,
        reject_threshold=0.7071067811865476,
        probabilities=(1 - score, *(score * share / whole for share in rest)),
        findings=() if what == "pass" else _findings(number, chance),
        picture=None if what == "pass" else picture,
        brightness=0.5 + number % 97 / 1_000,
        contrast=0.08 + number % 89 / 3_000,
        sharpness=1.7 + number % 83 / 700,
    )


def _findings(number: int, chance: random.Random) -> tuple[FindingOutcome, ...]:
    """Return one finding, or for every fourth flagged picture two, of different classes."""
    classes = chance.sample(CLASSES[1:], 2 if number % 100 == 96 else 1)
    return tuple(_finding(number, name, chance) for name in classes)


def _finding(number: int, class_name: str, chance: random.Random) -> FindingOutcome:
    def ref(kind: str, name: str) -> ArtifactRef:
        return ArtifactRef(
            digest(f"{class_name} {name}", number), kind, "image/png", 2_000 + chance.randrange(3_000)
        )

    left, top = chance.randrange(300), chance.randrange(300)
    return FindingOutcome(
        class_name=class_name,
        class_score=0.3 + chance.random() * 0.69,
        threshold=0.3125,
        explanation=ExplanationOutcome(
            method="sise",
            parameters={"mu": 0.0, "batch_size": 16, "layers": ["layer1", "layer2", "layer3"]},
            layers=tuple(LayerMasks(f"layer{n}", chance.randrange(1, 64), 64) for n in (1, 2, 3)),
            status="ok",
            masked_score=chance.random() * 0.3,
            drop=chance.random() * 80,
            increase=False,
            map=ref("map", "map"),
            block_maps=tuple((f"layer{n}", ref("block_map", f"layer{n}")) for n in (1, 2, 3)),
            box=(left, top, left + 40, top + 30),
        ),
    )


def register(db: Database, name: str = "tiles") -> ModelRecord:
    """Record a model, and return it."""
    return register_model(
        db,
        digest=digest("model", sum(name.encode())),
        name=name,
        architecture="resnet18",
        classes=CLASSES,
        task="single-label",
        thresholds={"review": 0.3125, "reject": 0.7071067811865476, "target_escape_rate": 0.01},
        card={"trained_on": "magnetic tiles", "metrics": {"auroc": 0.9912}},
        actor=INSPECTOR,
    )


def start(db: Database, model: ModelRecord, settings: dict[str, Any] = SETTINGS) -> RunHandle:
    """Start a run, and return it."""
    return start_or_resume_run(
        db,
        source="s3://line-1",
        settings=settings,
        settings_digest=digest_of(settings),
        model=model,
        actor=INSPECTOR,
        host="line-1",
        trigger="schedule",
    )


def batches(first: int, last: int, size: int = BATCH) -> Iterator[list[ImageOutcome]]:
    """Yield the outcomes of pictures first to last - 1, batch by batch."""
    for begin in range(first, last, size):
        yield [outcome(number) for number in range(begin, min(begin + size, last))]


PASSWORD = "blowhole fray crack 1"  # noqa: S105


def engineer(db: Database) -> Authenticated:
    """Sign in the person who decides, who is added where she is not known.

    A sign-in is valid for minutes, less than a benchmark takes: ask for a new one before each use.
    """
    with db.session() as session:
        known = {person.login for person in list_people(session)}
    for login, role in (("admin", "administrator"), ("engineer", "quality-engineer")):
        if login not in known:
            by = INSPECTOR if login == "admin" else _signed_in(db, "admin")
            add_person(db, login, name=login.title(), role=role, password=PASSWORD, by=by)
    return _signed_in(db, "engineer")


def _signed_in(db: Database, login: str) -> Authenticated:
    return authenticate(db, login, PASSWORD, account=INSPECTOR)


def later(db: Database, run: RunHandle, signer: Authenticated, decided: int, replayed: int) -> None:
    """Record signed decisions on findings of a run, and replays.

    A decision is a transaction of its own, as in a plant; replays are recorded together.
    """
    for number in range(1, decided + 1):
        dispose(
            db,
            f"{run.reference}-{number:04d}",
            decision=("confirm", "overrule")[number % 2],
            reason=f"seen under the lamp at desk {number % 17}",
            signer=signer,
        )
    with db.write() as recorder:
        session, now = recorder.session, utc_now()
        predictions = select(Prediction.id).where(Prediction.run_id == run.id).order_by(Prediction.id.desc())
        replays = []
        for prediction in session.scalars(predictions.limit(replayed)).all():
            row = NewRow(
                "replay",
                {
                    "id": uuid7().hex,
                    "prediction_id": prediction,
                    "result": "identical",
                    "details": {"score": 0.0},
                    "software_version": db.software_version,
                    "host": "line-1",
                    "created_at": now,
                },
            )
            replays.append(Entry([row], "replay.made", "replay", row.values["id"], {"result": "identical"}))
        recorder.add_all(replays, actor=INSPECTOR, run_id=run.id)
