"""Measure reports at scale: pages a second against plain WeasyPrint, memory of each process, page size.

    python -m benchmarks.reports                                 # 100 and 1,000 findings of 100,000 pictures
    python -m benchmarks.reports --findings 20,60 --listed 1000  # a small one

Each measurement has a process of its own. "plain" is what kensa would do without parts and workers: the same
HTML in one string, through one `HTML(...).write_pdf(pdf_tags=True)`. Both times include reading evidence and
drawing pictures. Memory is the high-water mark of the resident set (VmHWM), of the process that renders and
of the largest of its workers.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from multiprocessing import get_context
from os import getpid
from pathlib import Path

import numpy as np
from PIL import Image

from reports.attachments.listing import ListedPicture
from reports.attachments.manifest import Supplement
from reports.compose.inspection import compose_run
from reports.content.base import AuditHead, Counts, Criteria, Criterion, Model
from reports.content.finding import Evidence, Explanation, FindingPage, LayerMasks
from reports.content.inspection import RunReport
from reports.document import Document
from reports.pdf.blocks import print_job, style_sheet
from reports.pdf.layout import Asset, MemoryFetcher, own_font
from reports.pdf.render import cores, cut, render

START = datetime(2026, 11, 23, 6, 0, 4, tzinfo=UTC)
LAYERS = (("act1", 56), ("layer1.1", 56), ("layer2.1", 28), ("layer3.1", 14), ("layer4.1", 7))
CLASSES = ("good", "scratch", "pit", "inclusion", "patch")


@dataclass(frozen=True)
class Synthetic:
    """The evidence of finding `number`: a 480 x 360 picture of brushed metal with a scratch, and maps."""

    number: int

    def __call__(self) -> Evidence:
        """Return the evidence, the same for the same number."""
        rng = np.random.default_rng(self.number)
        height, width = 360, 480
        grain = np.cumsum(rng.normal(0, 1, (height, width)), axis=1)
        grain -= np.asarray(
            Image.fromarray(grain.astype(np.float32)).resize((12, height)).resize((width, height))
        )
        y, x = np.mgrid[0:height, 0:width]
        cx, cy, angle = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height, rng.uniform(0, np.pi)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
        scratch = np.exp(-((across / 1.6) ** 2)) * (np.abs(along) < 90)
        pixels = np.clip(128 + 3 * grain + 70 * scratch, 0, 255).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
        where = np.exp(-((across / 22) ** 2) - (along / 90) ** 2).astype(np.float32)
        blocks = []
        for name, cells in LAYERS:
            coarse = np.asarray(Image.fromarray(where).resize((cells, cells), Image.Resampling.BOX))
            noisy = coarse + rng.random((cells, cells), dtype=np.float32) * 0.4
            blocks.append((name, (noisy - noisy.min()) / np.ptp(noisy)))
        return Evidence(picture=buffer.getvalue(), map=where, block_maps=tuple(blocks))


def document(findings: int, listed: int) -> Document:
    """Return a run report with so many findings, and a listing of so many pictures attached."""
    pages = tuple(_finding(number) for number in range(1, findings + 1))
    rejects = sum(page.verdict == "reject" for page in pages)
    digest = sha256(b"x").hexdigest()
    record = RunReport(
        number="R000012",
        source="s3://line-4/inspection/2026-11-23",
        started_at=START,
        finished_at=START + timedelta(hours=7),
        issued_at=START + timedelta(hours=7, minutes=1),
        status="completed",
        model=Model(
            "rolled-steel",
            "resnet18",
            digest,
            CLASSES,
            "single-label",
            Criteria(Criterion(0.3127), Criterion(0.8714)),
            "good",
        ),
        settings_digest=digest,
        software_version="0.1.0",
        counts=Counts(listed, listed - findings, findings - rejects, rejects, 0),
        lots=("LOT-2291",),
        findings=pages,
        max_finding_pages=findings,
        audit_head=AuditHead(listed, digest),
    )
    return compose_run(record, Supplement(listing=_listing(listed)))


def _finding(number: int) -> FindingPage:
    score = (0.9637, 0.4821, 0.9991, 0.6502, 0.8823)[number % 5]
    return FindingPage(
        reference=f"R000012-{number:04d}",
        uri=f"LOT-2291/P-{100000 + number}.png",
        class_name=CLASSES[1 + number % 4],
        class_score=score,
        score=score,
        review_threshold=0.3127,
        reject_threshold=0.8714,
        verdict="reject" if score >= 0.8714 else "review",
        image_digest=sha256(str(number).encode()).hexdigest(),
        explanation=Explanation(
            "sise",
            masks=tuple(LayerMasks(name, 31, 64) for name, _ in LAYERS),
            parameters=(("mu", "0.0"), ("baseline", "mean"), ("fusion", "otsu")),
            masked_score=score * 0.8,
            drop=20.0,
            map_digest=sha256(b"map").hexdigest(),
        ),
        load=Synthetic(number),
        part=f"P-{100000 + number}",
        lot="LOT-2291",
        station="CAM-3",
        captured_at=START + timedelta(seconds=7 * number),
    )


def _listing(listed: int) -> Iterator[ListedPicture]:
    for number in range(listed):
        name = f"P-{100000 + number}"
        yield ListedPicture(
            f"LOT-2291/{name}.png",
            "pass",
            0.0123,
            part=name,
            lot="LOT-2291",
            station="CAM-3",
            captured_at=START + timedelta(seconds=number),
            image_digest=sha256(str(number).encode()).hexdigest(),
        )


@dataclass(frozen=True)
class Measured:
    """One rendering: seconds, bytes, and the most memory of the process and of its largest worker, in MB."""

    seconds: float
    size: int
    memory: float
    largest_worker: float


def kensas(findings: int, listed: int, workers: int) -> Measured:
    """Measure rendering as kensa does it."""
    made = document(findings, listed)
    return _measured(lambda: render(made, workers))


def plain(findings: int, listed: int) -> Measured:
    """Measure rendering the same HTML by plain WeasyPrint."""
    made = document(findings, listed)
    return _measured(lambda: _plain_pdf(made))


def _plain_pdf(made: Document) -> bytes:
    from weasyprint import CSS, HTML, Attachment
    from weasyprint.text.fonts import FontConfiguration

    assets: dict[str, Asset] = {}
    pages = []
    for job in cut(made, Path()):
        printed = print_job(job)
        assets.update(printed.assets)
        pages.append(printed.html)
    html = pages[0].split("</body>")[0] + "".join(_body(page) for page in pages[1:])
    fetcher = MemoryFetcher(lambda url: assets.get(url) or own_font(url))
    fonts = FontConfiguration()
    sheet = CSS(string=style_sheet(made.style, None, leads=True), url_fetcher=fetcher, font_config=fonts)
    attached = [Attachment(file_obj=BytesIO(f.data), name=f.name, url_fetcher=fetcher) for f in made.attached]
    pdf: bytes = HTML(string=html + "</body></html>", url_fetcher=fetcher).write_pdf(
        stylesheets=[sheet], font_config=fonts, pdf_tags=True, attachments=attached
    )
    return pdf


def _body(html: str) -> str:
    # The page without the running head and foot, which a document has once.
    return re.split(r'<div class="foot">.*?</div>', html, maxsplit=1, flags=re.S)[1].split("</body>")[0]


def _measured(work: Callable[[], bytes]) -> Measured:
    workers: dict[int, float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    status = (folder / "status").read_text()
                except OSError:  # it has ended
                    continue
                if f"\nPPid:\t{getpid()}\n" in status:
                    name = int(folder.name)  # a process that is ending shows no memory: keep what it showed
                    workers[name] = max(workers.get(name, 0.0), _high_water(status))

    watching = threading.Thread(target=watch)
    watching.start()
    begun = time.perf_counter()
    try:
        size = len(work())
        seconds = time.perf_counter() - begun
    finally:
        over.set()
        watching.join()
    own = _high_water(Path("/proc/self/status").read_text())
    return Measured(seconds, size, own, max(workers.values(), default=0.0))


def _high_water(status: str) -> float:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, flags=re.M)
    return int(found[1]) / 1000 if found else 0.0


def _apart(work: Callable[..., Measured], *arguments: int) -> Measured:
    # A worker of a pool may have workers of its own; a daemon may not.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--findings", default="100,1000", help="numbers of findings, separated by commas")
    parser.add_argument("--listed", type=int, default=100_000, help="pictures in the attached listing")
    parser.add_argument("--workers", type=int, default=cores())
    options = parser.parse_args()
    bare = _apart(kensas, 0, options.listed, 1)
    print(f"{options.workers} workers, {options.listed} listed; no finding: {bare.size / 1e6:.2f} MB")
    print("findings  renderer     s  pages/s  ratio  parent MB  largest worker MB  bytes/page")
    for count in map(int, options.findings.split(",")):
        one = _apart(plain, count, options.listed)
        mine = _apart(kensas, count, options.listed, options.workers)
        for name, m in (("plain", one), ("kensa", mine)):
            ratio = one.seconds / m.seconds
            page = (m.size - bare.size) / count
            print(
                f"{count:8}  {name:8} {m.seconds:6.1f}  {count / m.seconds:7.2f}  {ratio:5.2f}"
                f"  {m.memory:9.0f}  {m.largest_worker:17.0f}  {page:10.0f}"
            )


if __name__ == "__main__":
    main()
