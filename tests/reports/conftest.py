"""Realistic synthetic records: brushed-metal pictures with a scratch, and maps that find it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from reports.content.base import AuditHead, Counts, Criteria, Criterion, MissingPicture, Model, Rate, Revision
from reports.content.dossier import DecidedBy, Dossier, Entry, Occurrence, PictureLine, ReplayLine
from reports.content.finding import Evidence, ExplainedTile, Explanation, FindingPage, Held, LayerMasks
from reports.content.inspection import RunReport
from reports.content.period import ModelInForce, PeriodReport, RunLine, Scope
from reports.content.process import Process, Review
from reports.stats.control_chart import Subgroup
from reports.stats.drift import Reference, Sample, trend
from reports.style import Style
from tests.large_picture import scratched_surface
from tests.reports.rendering import render_run_report

CLASSES = ("good", "scratch", "pit", "inclusion", "patch")
CRITERIA = Criteria(
    review=Criterion(0.3127, Rate(0.0033, 0.0099, 610, 0.01), Rate(0.061, 0.073, 1280)),
    reject=Criterion(0.8714, Rate(0.082, 0.103, 610), Rate(0.0109, 0.0171, 1280, 0.05)),
    dataset_digest=sha256(b"calibration").hexdigest(),
)
MODEL = Model(
    "rolled-steel",
    "resnet18",
    sha256(b"model").hexdigest(),
    CLASSES,
    "single-label",
    CRITERIA,
    good_class="good",
)
START = datetime(2026, 11, 23, 6, 0, 4, tzinfo=UTC)


def picture(seed: int, width: int = 224, height: int = 224) -> tuple[bytes, np.ndarray]:
    """A PNG of brushed metal with one scratch, and where the scratch is (height, width) in [0, 1]."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 1, (height, width + 24))
    grain = sum(grain[:, k : k + width] for k in range(24)) / 24**0.5
    y, x = np.mgrid[0:height, 0:width]
    light = 30 * np.sin(x / width * 2 + seed) + 15 * np.cos(y / height * 3)
    cx, cy = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
    angle = rng.uniform(0, np.pi)
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    reach = min(width, height) * 0.25
    scratch = np.exp(-((across / 1.6) ** 2)) * (np.abs(along) < reach)
    pixels = np.clip(128 + light + 14 * grain + 70 * scratch, 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    where = np.exp(-((across / 14) ** 2) - ((along / (reach * 0.9)) ** 2))
    return buffer.getvalue(), where.astype(np.float32)


LAYERS = ("act1", "layer1.1", "layer2.1", "layer3.1", "layer4.1")


def block_maps(where: np.ndarray, seed: int) -> tuple[tuple[str, np.ndarray], ...]:
    rng = np.random.default_rng(seed + 1000)
    height, width = where.shape
    blocks = []
    for i, (name, cells) in enumerate(zip(LAYERS, (56, 56, 28, 14, 7), strict=True)):
        coarse = Image.fromarray(where).resize((cells, cells), Image.Resampling.BOX)
        noisy = np.asarray(coarse) + rng.random((cells, cells)) * (0.55 - 0.1 * i)
        full = Image.fromarray(noisy.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        values = np.asarray(full)
        blocks.append((name, ((values - values.min()) / np.ptp(values)).astype(np.float32)))
    return tuple(blocks)


def explanation(where: np.ndarray, **changes: Any) -> Explanation:
    totals = (64, 64, 128, 256, 512)
    plain = Explanation(
        method="sise",
        masks=tuple(
            LayerMasks(name, total // 2 - i, total)
            for i, (name, total) in enumerate(zip(LAYERS, totals, strict=True))
        ),
        parameters=(("mu", "0.0"), ("baseline", "mean"), ("fusion", "otsu")),
        masked_score=0.3544,
        drop=19.6,
        increase=False,
        map_digest=sha256(where.tobytes()).hexdigest(),
    )
    return replace(plain, **changes)


def finding(index: int, *, width: int = 224, height: int = 224, **changes: Any) -> FindingPage:
    data, where = picture(index, width, height)
    score = (0.9637, 0.4821, 0.9991, 0.6502, 0.8823)[index % 5]
    share = (0.804, 0.62, 1.02, 0.31, 0.97)[index % 5]
    class_score = round(score - 0.0414, 4)
    measured = {
        "masked_score": round(class_score * share, 4),
        "drop": max(0.0, 100 * (1 - share)),
        "increase": share > 1,
    }
    plain = FindingPage(
        reference=f"R000012-{index:04d}",
        uri=f"LOT-2291/P-{100000 + index}.png",
        class_name=("scratch", "scratch", "pit", "inclusion", "scratch", "patch")[index % 6],
        class_score=class_score,
        score=score,
        review_threshold=CRITERIA.review.threshold,
        reject_threshold=CRITERIA.reject.threshold,
        verdict="reject" if score >= CRITERIA.reject.threshold else "review",
        image_digest=sha256(data).hexdigest(),
        explanation=explanation(where, **measured),
        load=Held(Evidence(picture=data, map=where, block_maps=block_maps(where, index))),
        part=f"P-{100000 + index}",
        lot="LOT-2291",
        station="CAM-3",
        captured_at=START + timedelta(seconds=7 * index),
    )
    return replace(plain, **changes)


def tiled_finding(
    index: int, height: int, width: int, scratches: Sequence[tuple[int, int]], tile: int = 224, **changes: Any
) -> FindingPage:
    """A finding on a large picture with scratches of 60 x 3 pixels; the tile around each was explained."""
    pixels = scratched_surface(height, width, *scratches, seed=index)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    tiles, maps = [], []
    for left, top in scratches:
        across, down = min(tile, width), min(tile, height)
        x = min(max(left - across // 3, 0), width - across)
        y = min(max(top - down // 3, 0), height - down)
        where = np.zeros((down, across), np.float32)
        where[top - y : top - y + 3, left - x : left - x + 60] = 1.0
        where = ndimage.gaussian_filter(where, 6)
        where /= where.max()
        rectangle = (x, y, x + across, y + down)
        maps.append((rectangle, where))
        tiles.append(
            ExplainedTile(
                rectangle,
                round(0.97 - 0.02 * len(tiles), 2),
                masked_score=0.9,
                drop=5.0,
                increase=False,
                map_digest=sha256(where.tobytes()).hexdigest(),
                box=(left - 8, top - 8, left + 68, top + 11),
            )
        )
    first = maps[0][1]
    explained = explanation(
        first, masked_score=0.9, drop=5.0, map_digest=None, box=tiles[0].box, tiles=tuple(tiles)
    )
    evidence = Evidence(picture=buffer.getvalue(), tiles=tuple(maps), block_maps=block_maps(first, index))
    plain = finding(
        index,
        class_name="scratch",
        class_score=0.97,
        score=0.98,
        verdict="reject",
        explanation=explained,
        image_digest=sha256(buffer.getvalue()).hexdigest(),
        load=Held(evidence),
        tile_count=1234,
    )
    return replace(plain, **changes)


def report(count: int = 4, **changes: Any) -> RunReport:
    pages = tuple(finding(i) for i in range(1, count + 1))
    rejects = sum(page.verdict == "reject" for page in pages)
    unreadable = (
        (
            "LOT-2291/P-100311.png",
            "damaged or truncated file: image file is truncated (12 bytes not processed)",
        ),
        ("LOT-2291/P-100388.tif", "the file is empty (0 bytes)"),
    )
    counts = Counts(480, 480 - count - 2, count - rejects, rejects, 2, carried_over=31)
    plain = RunReport(
        number="R000012",
        source="s3://line-4/inspection/2026-11-23",
        started_at=START,
        finished_at=START + timedelta(minutes=6, seconds=41.2),
        issued_at=START + timedelta(minutes=7, seconds=3),
        status="completed",
        model=MODEL,
        settings_digest=sha256(b"settings").hexdigest(),
        software_version="0.1.0",
        counts=counts,
        run_id="019ab0f2-6d0e-7c31-9a53-2f7f0c5f2f11",
        organisation="Nordhavn Rolling Mills, Quality Assurance",
        trigger="schedule",
        host="insp-04",
        lots=("LOT-2291",),
        stations=("CAM-3",),
        style=Style(zone="Europe/Copenhagen"),
        findings=pages,
        unreadable=unreadable,
        missing_pictures=(
            MissingPicture("LOT-2291/P-100402.png", "R000012", "P-100402", "LOT-2291", "CAM-3"),
        ),
        audit_head=AuditHead(4512, sha256(b"head").hexdigest()),
    )
    return replace(plain, **changes)


@pytest.fixture(scope="session")
def make_report() -> Callable[..., RunReport]:
    return report


@pytest.fixture(scope="session")
def make_tiled_finding() -> Callable[..., FindingPage]:
    return tiled_finding


@pytest.fixture(scope="session")
def make_finding() -> Callable[..., FindingPage]:
    return finding


def process(*, drifts: bool = True) -> Process:
    """Twelve runs of about 6 % flagged pictures, the last of which is worse and, if it drifts, brighter."""
    flagged = (25, 30, 22, 28, 31, 27, 24, 29, 33, 26, 28, 62)
    names = [f"R{n:06d}" for n in range(1, 13)]
    reference = Reference(
        900, 0.5, 0.05, ((0.01, 0.38), (0.05, 0.42), (0.25, 0.466), (0.75, 0.534), (0.95, 0.58), (0.99, 0.62))
    )
    trends = []
    for name in ("score", "brightness", "contrast", "sharpness"):
        last = 0.06 if drifts and name == "brightness" else 0.0
        samples = [
            Sample(
                each,
                480,
                0.5 + (last if each == names[-1] else 0.004 * (-1) ** i),
                0.05,
                4,
                5,
                each == names[-1],
            )
            for i, each in enumerate(names)
        ]
        samples[-1] = replace(samples[-1], current=True)
        trends.append(trend(name, reference, samples))
    return Process(
        "run",
        tuple(
            Subgroup(name, 480, x, reference=name != names[-1], current=name == names[-1])
            for name, x in zip(names, flagged, strict=True)
        ),
        tuple(trends),
        tuple(each.points[-1] for each in trends),
        (400, 20, 5, 3, 1, 0, 0, 2, 1, 0, 4, 0, 0, 6, 0, 0, 2, 2, 9, 25),
        tuple(i / 20 for i in range(21)),
    )


REVIEW = Review(4, ("confirm", "overrule"), 1, (("confirm", "confirm"), ("overrule", "confirm")))


def period(count: int = 3, **changes: Any) -> PeriodReport:
    pages = tuple(finding(i) for i in range(1, count + 1))
    runs = tuple(
        RunLine(
            f"R{n:06d}",
            START + timedelta(hours=n),
            START + timedelta(hours=n, minutes=20),
            "completed",
            MODEL.digest,
            480,
            470,
        )
        for n in range(1, 4)
    )
    plain = PeriodReport(
        number="P000003",
        scope=Scope(lot="LOT-2291"),
        issued_at=START + timedelta(days=1),
        software_version="0.1.0",
        counts=Counts(1410, 1405 - count, count, 0, 5),
        runs=runs,
        in_force=(ModelInForce(MODEL, sha256(b"settings").hexdigest(), 1405),),
        repeated=30,
        parts=1398,
        organisation="Nordhavn Rolling Mills, Quality Assurance",
        lots=("LOT-2291",),
        stations=("CAM-3", "CAM-4"),
        style=Style(zone="Europe/Copenhagen"),
        findings=pages,
        unreadable=(("LOT-2291/P-100311.png", "the file is empty (0 bytes)"),),
        process=process(),
        review=replace(REVIEW, findings=max(count, 2)),
        revisions=(Revision(1, START + timedelta(days=1)),),
        audit_head=AuditHead(4512, sha256(b"head").hexdigest()),
    )
    return replace(plain, **changes)


def dossier(**changes: Any) -> Dossier:
    page = finding(1)
    life = [
        (START, "the picture LOT-2291/P-100001.png was taken at station CAM-3."),
        (START + timedelta(minutes=7), "run R000012 inspected it: review, score 0.9637."),
    ]
    plain = Dossier(
        number="D000001",
        issued_at=START + timedelta(days=1),
        software_version="0.1.0",
        findings=(page,),
        decided_by=(DecidedBy("R000012", "completed", MODEL, sha256(b"settings").hexdigest(), "0.1.0"),),
        pictures=(
            PictureLine(page.uri, "R000012", START, "reject", page.score, page.image_digest, "CAM-3"),
            PictureLine("b.png", "R000012", START, "unreadable", reason="the file is empty (0 bytes)"),
        ),
        subject=page.reference,
        part=page.part,
        lot=page.lot,
        organisation="Nordhavn Rolling Mills, Quality Assurance",
        style=Style(zone="Europe/Copenhagen"),
        entries=tuple(Entry(at, said, 400 + i) for i, (at, said) in enumerate(life)),
        occurrences=(Occurrence("scratch", "in lot LOT-2291", 31, 2849),),
        replays=(ReplayLine(page.uri, START + timedelta(hours=2), "identical"),),
        revisions=(Revision(1, START + timedelta(days=1)),),
        audit_head=AuditHead(4512, sha256(b"head").hexdigest()),
    )
    return replace(plain, **changes)


@pytest.fixture(scope="session")
def make_process() -> Callable[..., Process]:
    return process


@pytest.fixture(scope="session")
def make_period() -> Callable[..., PeriodReport]:
    return period


@pytest.fixture(scope="session")
def make_dossier() -> Callable[..., Dossier]:
    return dossier


@pytest.fixture(scope="session")
def report_pdf() -> bytes:
    """A small report, rendered once, to be signed and tampered with."""
    return render_run_report(report(2))
