"""Realistic synthetic records: brushed-metal pictures with a scratch, and maps that find it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports.record import (
    AuditHead,
    Counts,
    Criteria,
    Criterion,
    Explanation,
    FindingPage,
    LayerMasks,
    Model,
    Rate,
    RunReport,
)

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


def explanation(where: np.ndarray, seed: int, **changes: Any) -> Explanation:
    rng = np.random.default_rng(seed + 1000)
    height, width = where.shape
    blocks = []
    for i, cells in enumerate((56, 56, 28, 14, 7)):
        coarse = Image.fromarray(where).resize((cells, cells), Image.Resampling.BOX)
        noisy = np.asarray(coarse) + rng.random((cells, cells)) * (0.55 - 0.1 * i)
        full = Image.fromarray(noisy.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        values = np.asarray(full)
        name = "act1" if i == 0 else f"layer{i}.1"
        blocks.append((name, ((values - values.min()) / np.ptp(values)).astype(np.float32)))
    totals = (64, 64, 128, 256, 512)
    plain = Explanation(
        method="sise",
        map=where,
        block_maps=tuple(blocks),
        masks=tuple(
            LayerMasks(name, total // 2 - i, total)
            for i, ((name, _), total) in enumerate(zip(blocks, totals, strict=True))
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
        explanation=explanation(where, index, **measured),
        picture=data,
        part=f"P-{100000 + index}",
        lot="LOT-2291",
        station="CAM-3",
        captured_at=START + timedelta(seconds=7 * index),
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
        timezone="Europe/Copenhagen",
        findings=pages,
        unreadable=unreadable,
        missing=("LOT-2291/P-100402.png",),
        audit_head=AuditHead(4512, sha256(b"head").hexdigest()),
    )
    return replace(plain, **changes)


@pytest.fixture(scope="session")
def make_report() -> Callable[..., RunReport]:
    return report


@pytest.fixture(scope="session")
def make_finding() -> Callable[..., FindingPage]:
    return finding
