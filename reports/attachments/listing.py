"""The listing that a report carries: one line a picture, as CSV after RFC 4180, in UTF-8."""

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO, TextIOWrapper

from reports.attachments.record_json import moment, text
from reports.wording import inert_cell

COLUMNS = (
    "uri",
    "part",
    "lot",
    "station",
    "captured_at",
    "verdict",
    "score",
    "reason",
    "image_sha256",
    "carried_over",
)
MISSING = "missing"  # the verdict of what was announced and never arrived: it is no listed picture
GONE = "gone_at_end"  # a last column, in the listing of a run that has such pictures


@dataclass(frozen=True)
class ListedPicture:
    """A picture that a run listed, and its outcome; `reason` says why it could not be read.

    `verdict` is pass, review, reject, unreadable, or "" without an outcome; MISSING for a picture that was
    announced and never arrived. `score` in [0, 1].
    """

    uri: str
    verdict: str = ""
    score: float | None = None
    part: str | None = None
    lot: str | None = None
    station: str | None = None
    captured_at: datetime | None = None
    reason: str | None = None
    image_digest: str | None = None
    carried_over: bool = False


def listing_csv(pictures: Iterable[ListedPicture], gone: Collection[str] = ()) -> bytes:
    """Return a listing as CSV, read one picture at a time; every cell is quoted, every line ends with CR LF.

    `gone`: uris that were not in the source any more at the run's end; they get a column where there are any.
    No cell is one that a spreadsheet runs, see `wording.inert_cell`.
    """
    buffer = BytesIO()
    stream = TextIOWrapper(buffer, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow((*COLUMNS, GONE) if gone else COLUMNS)
    for picture in pictures:
        last = ("yes" if picture.uri in gone else "no",) if gone else ()
        writer.writerow((*_csv_row(picture), *last))
    return buffer.getvalue()


def _csv_row(picture: ListedPicture) -> tuple[str, ...]:
    cells = (
        picture.uri,
        picture.part or "",
        picture.lot or "",
        picture.station or "",
        "" if picture.captured_at is None else moment(picture.captured_at),
        picture.verdict,
        "" if picture.score is None else repr(float(picture.score)),
        picture.reason or "",
        picture.image_digest or "",
        "yes" if picture.carried_over else "no",
    )
    return tuple(inert_cell(text(cell)) for cell in cells)
