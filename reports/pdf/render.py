"""Renders a document as a PDF: processes lay out its blocks, their pages are counted, and all are joined.

A process that dies is replaced, and its work is done again.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from db.files import workspace
from reports.document import Document, FindingPages
from reports.errors import ReportError
from reports.pdf.blocks import Job, Rendered, page_numbers, render_block
from reports.pdf.join import join
from reports.pdf.layout import Sheets

_log = logging.getLogger("kensa")

_FINDINGS = 20  # pages of a block: enough to be worth its fonts, few enough to share the work out evenly
_MUCH = 40  # starting workers pays above so many finding pages
_ROUNDS = 4  # of layout, until page numbers have to stay the same
_TRIES = 3  # pools that may break before the rest is rendered in this process


def render(document: Document, workers: int | None = None) -> bytes:
    """Render a document as PDF/A-3u and PDF/UA-1. The same document gives the same bytes.

    That takes the same kensa, its locked libraries, the same files in the user's folder and, for characters
    that the embedded type family lacks (CJK, emoji), the same system fonts. The number of workers may differ.

    Args:
        document: what to render.
        workers: processes that lay out blocks side by side. Left out, as many as there are processors where
            there is much to do, else 1: this process.

    Raises:
        ReportError: a template or style sheet has a mistake, wants to fetch something, or prints page numbers
            that do not settle; or an id occurs twice.
    """
    with workspace("report") as folder:
        jobs = list(cut(document, folder))
        if not jobs:
            raise ReportError("blocks: a document needs at least one page")
        if workers is None:
            pages = sum(len(block.findings) for block in document.blocks if isinstance(block, FindingPages))
            workers = cores() if pages > _MUCH else 1
        with closing(Workshop(workers)) as workshop:
            blocks = _render_settled(workshop, jobs)
        target = folder / "joined.pdf"
        join(document, blocks, target)
        return target.read_bytes()


def cut(document: Document, folder: Path) -> Iterator[Job]:
    """Yield the pieces of a document, in order, each of which is laid out on its own."""
    bare = replace(document, blocks=(), attached=())
    index, first = 0, 1
    for block in document.blocks:
        pieces = [block]
        if isinstance(block, FindingPages):
            starts = range(0, len(block.findings), _FINDINGS)
            pieces = [FindingPages(block.findings[start : start + _FINDINGS]) for start in starts]
        for piece in pieces:
            yield Job(bare, piece, index, first, folder / f"{index:05}.pdf")
            index += 1
            first += len(piece.findings) if isinstance(piece, FindingPages) else 0


class Workshop:
    """Renders blocks in `workers` processes, or in this process where that is 1."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._sheets = Sheets()

    def render(self, jobs: Sequence[Job]) -> list[Rendered]:
        """Render blocks, in the order given.

        Raises:
            ReportError: see `blocks.render_block`.
        """
        done: dict[int, Rendered] = {}
        tries = _TRIES if self._workers > 1 and len(jobs) > 1 else 0
        while tries and len(done) < len(jobs):
            left = [at for at in range(len(jobs)) if at not in done]
            try:
                pool = self._open()
                futures = {at: pool.submit(render_block, jobs[at]) for at in left}
                for at, future in futures.items():
                    done[at] = future.result()
            except BrokenProcessPool:
                tries -= 1
                _log.warning("a process that rendered a report died; its pages are rendered again")
                self.close()
        return [done[at] if at in done else render_block(job, self._sheets) for at, job in enumerate(jobs)]

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: neither Pango nor a caller's database connections survive a fork.
            self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        return self._pool

    def close(self) -> None:
        """Stop the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _render_settled(workshop: Workshop, jobs: Sequence[Job]) -> list[Rendered]:
    """Render blocks, and those that print page numbers again, until these are right.

    A number that is printed can change the layout, and with it the numbers.
    """
    blocks = workshop.render(jobs)
    known = None
    for _ in range(_ROUNDS):
        numbers = page_numbers(blocks)
        asking = [at for at, block in enumerate(blocks) if block.prints_numbers]
        if not asking or numbers == known:
            return blocks
        again = workshop.render([replace(jobs[at], numbers=numbers) for at in asking])
        for at, block in zip(asking, again, strict=True):
            blocks[at] = block
        known = numbers
    raise ReportError("the page numbers that templates print do not settle; give them a fixed width")
