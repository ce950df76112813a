"""Reviewed findings as training data: what people decided becomes labels, with where each comes from."""

import csv
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

from configs.loading import ConfigError
from db.artifacts import ArtifactStore
from db.chain.events import Actor, Head
from db.engine import Database
from db.errors import ArtifactError
from db.queries.findings import FindingFilter
from db.queries.json_values import plain
from db.queries.reviewed import ReviewedFinding, ReviewedPicture, event_hashes, reviewed_pictures
from operations.coco_annotations import CocoFile
from reports.wording import inert_cell
from sources.decoding import upright_size
from sources.errors import Unreadable

Grouping = Literal["part", "lot"]
# Columns of training data that name a single thing; any other may as well name a batch.
_PART_WORDS = frozenset({"part", "item", "piece", "serial", "specimen", "unit"})
LABELS, PROVENANCE, PICTURES, COCO = "labels.csv", "provenance.jsonl", "pictures", "annotations.json"
_SUFFIX = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp"}


@dataclass(frozen=True)
class Excluded:
    """A reviewed picture that is not in the data set, and why. `broken`: the store does not give it back."""

    digest: str
    findings: tuple[str, ...]
    reason: str
    broken: bool = False


@dataclass(frozen=True)
class Exported:
    """What was exported. `undecided`: pictures with findings about which nothing is in effect yet.

    `multi_label`, `good_class`: what `kensa train` must be told. `grouping`: what a group is; `grouped_by`:
    the columns by which the models' training data was grouped, as far as they say. `event`: what records the
    export, None where there was nothing to export.
    """

    folder: Path
    labels: dict[str, int]
    pictures: int
    excluded: tuple[Excluded, ...]
    undecided: int
    multi_label: bool
    good_class: str | None
    grouping: Grouping
    grouped_by: tuple[str, ...]
    labels_digest: str
    event: Head | None


@dataclass(frozen=True)
class _Labelled:
    picture: ReviewedPicture
    name: str
    labels: tuple[str, ...]
    size: tuple[int, int]


def export_dataset(
    database: Database,
    store: ArtifactStore,
    folder: Path,
    wanted: FindingFilter,
    *,
    actor: Actor,
    good_class: str | None = None,
    group: str | None = None,
) -> Exported:
    """Write reviewed pictures, their labels and provenance to a new or empty folder, all or nothing.

    The export is an audit event, recorded before the folder appears. `good_class`: what a picture without
    a defect is called; by default as the models call it. `group`: what is never on two sides of a split,
    "part" or "lot"; by default as the models were trained, and the lot where they do not say.

    Raises:
        ConfigError: the folder holds something, `group` is neither, or the models found do not agree on the
            task or on the good class. RecordError: a filter names something that no record has.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not an empty folder: give a new one")
    if group not in (None, *get_args(Grouping)):
        raise ConfigError(f"--group {group}: expected {' or '.join(get_args(Grouping))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{folder.name}.{uuid4().hex}.part"
    (part / PICTURES).mkdir(parents=True)
    try:
        return _export(database, store, folder, part, wanted, actor, good_class, group)
    finally:
        if part.exists():
            shutil.rmtree(part)


def _export(
    database: Database,
    store: ArtifactStore,
    folder: Path,
    part: Path,
    wanted: FindingFilter,
    actor: Actor,
    given_good: str | None,
    given_group: str | None,
) -> Exported:
    excluded: list[Excluded] = []
    counts: Counter[str] = Counter()
    table = io.StringIO()
    coco = CocoFile(store)
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("image", "label", "group", "lot", "part"))
    with database.session() as session:
        wanted.require_known(session)
        pictures, undecided = reviewed_pictures(session, wanted)
        found = list(pictures)
        multi_label, good_class = _scheme(found, given_good)
        grouping, grouped_by = _grouping(found, given_group)
        with (part / PROVENANCE).open("w", encoding="utf-8", newline="\n") as provenance:
            for one in _labelled(found, store, part, multi_label, good_class, excluded):
                picture = one.picture
                lot, serial = (picture.lot or "").strip(), (picture.part or "").strip()
                names = (serial, lot) if grouping == "part" else (lot, serial)
                group = next(filter(None, names), picture.digest)
                row = (one.name, ";".join(one.labels), group, lot, serial)
                # People open it in a spreadsheet. provenance.jsonl has the texts as they are.
                writer.writerow(map(inert_cell, row))
                place = {"group": group, "lot": lot, "part": serial}
                coco.add(one.name, one.size, one.labels, place, picture.findings)
                counts.update(one.labels or ("",))
                hashes = event_hashes(session, _events(picture))
                provenance.write(json.dumps(_origin(one, hashes), ensure_ascii=False) + "\n")
    labels = table.getvalue().encode()
    (part / LABELS).write_bytes(labels)
    labels_digest = hashlib.sha256(labels).hexdigest()
    annotations = json.dumps(coco.content(), ensure_ascii=False).encode()
    (part / COCO).write_bytes(annotations)
    event = None
    count = len(found) - len(excluded)
    if count:
        provenance_digest = hashlib.sha256((part / PROVENANCE).read_bytes()).hexdigest()
        filters = {
            field.name: plain(value)
            for field in fields(wanted)
            if (value := getattr(wanted, field.name)) is not None
        }
        with database.write() as recorder:
            # Recorded first: whoever has the folder finds the event, whenever the machine stops.
            event = recorder.add(
                [],
                action="dataset.exported",
                actor=actor,
                entity="dataset",
                entity_id=labels_digest,
                payload={
                    "pictures": count,
                    "labels": dict(counts),
                    "excluded": len(excluded),
                    "undecided": undecided,
                    "group": grouping,
                    "filter": filters,
                    "labels_digest": labels_digest,
                    "provenance_digest": provenance_digest,
                    "annotations_digest": hashlib.sha256(annotations).hexdigest(),
                },
            )
        part.replace(folder)
    return Exported(
        folder=folder,
        labels=dict(counts),
        pictures=count,
        excluded=tuple(excluded),
        undecided=undecided,
        multi_label=multi_label,
        good_class=good_class,
        grouping=grouping,
        grouped_by=grouped_by,
        labels_digest=labels_digest,
        event=event,
    )


def _scheme(pictures: list[ReviewedPicture], given_good: str | None) -> tuple[bool, str | None]:
    """Return whether a picture may have several labels, and what one without a defect is called."""
    findings = [finding for picture in pictures for finding in picture.findings]
    if len(tasks := {finding.task for finding in findings}) > 1:
        raise ConfigError(f"findings of {' and '.join(sorted(tasks))} models: choose one with --model")
    multi_label = tasks == {"multi-label"}
    if given_good is not None:
        return multi_label, given_good
    names = {finding.good_class for finding in findings if finding.good_class is not None}
    if len(names) > 1:
        called = " and ".join(sorted(names))
        raise ConfigError(f"the models call the good class {called}: say which with --good-class")
    return multi_label, next(iter(names), None)


def _grouping(pictures: list[ReviewedPicture], given: str | None) -> tuple[Grouping, tuple[str, ...]]:
    """Return what a group is, and the columns by which the models' training data was grouped."""
    columns = {finding.grouped_by for picture in pictures for finding in picture.findings}
    known = tuple(sorted(column for column in columns if column is not None))
    if given is not None:
        return ("part" if given == "part" else "lot"), known
    by_part = [not _PART_WORDS.isdisjoint(re.split("[^a-z]+", (column or "").lower())) for column in columns]
    # A lot holds its parts whole: where the models differ, or do not say, it is the careful one.
    return ("part" if by_part and all(by_part) else "lot"), known


def _labelled(
    pictures: list[ReviewedPicture],
    store: ArtifactStore,
    part: Path,
    multi_label: bool,
    good_class: str | None,
    excluded: list[Excluded],
) -> Iterator[_Labelled]:
    """Copy each picture that has a label under its digest; those left out are added to `excluded`."""
    for picture in pictures:
        references = tuple(finding.reference for finding in picture.findings)
        labels = _labels(picture.findings, multi_label, good_class)
        reason = picture.pruned or (labels if isinstance(labels, str) else None)
        if reason is not None or isinstance(labels, str):
            excluded.append(Excluded(picture.digest, references, str(reason)))
            continue
        try:
            data = store.get(picture.digest)
        except ArtifactError as error:
            excluded.append(Excluded(picture.digest, references, str(error), broken=True))
            continue
        try:
            size = upright_size(data)
        except Unreadable as error:
            excluded.append(Excluded(picture.digest, references, str(error)))
            continue
        name = f"{PICTURES}/{picture.digest}.{_SUFFIX.get(picture.format or '', 'img')}"
        (part / name).write_bytes(data)
        yield _Labelled(picture, name, labels, size)


def _labels(
    findings: tuple[ReviewedFinding, ...], multi_label: bool, good_class: str | None
) -> tuple[str, ...] | str:
    """Return a picture's labels by what was decided about its findings, or why it has none."""
    decided = [finding for finding in findings if finding.decided]
    present = {finding.label for finding in decided if finding.label is not None}
    absent = {finding.class_name for finding in decided if finding.label != finding.class_name}
    if both := present & absent:
        return f"contradictory decisions about {', '.join(sorted(both))}"
    open_ = [
        finding.reference
        for finding in findings
        if not finding.decided and finding.class_name not in present | absent
    ]
    if open_ and (multi_label or not present):
        return f"not decided yet: {', '.join(open_)}"
    if not multi_label and len(present) > 1:
        return f"shows {' and '.join(sorted(present))}, and a label of these models holds one class"
    if present:
        return tuple(sorted(present))
    if good_class is None and not multi_label:
        raise ConfigError("there are pictures without a defect: say with --good-class what they are called")
    return () if good_class is None else (good_class,)


def _events(picture: ReviewedPicture) -> set[int]:
    rows = [row for finding in picture.findings for row in finding.history]
    return {row.event_sequence for row in rows} | {
        row.approval.event_sequence for row in rows if row.approval is not None
    }


def _origin(one: _Labelled, hashes: dict[int, str]) -> dict[str, Any]:
    """Return what provenance.jsonl says of a picture."""

    def event(sequence: int) -> dict[str, Any]:
        return {"sequence": sequence, "hash": hashes[sequence]}

    picture = one.picture
    return {
        "image": one.name,
        "image_digest": picture.digest,
        "labels": list(one.labels),
        "uri": picture.uri,
        "lot": picture.lot,
        "part": picture.part,
        "station": picture.station,
        "findings": [
            {
                "reference": finding.reference,
                "run": finding.run_reference,
                "class": finding.class_name,
                "class_score": finding.class_score,
                "score": finding.score,
                "model_digest": finding.model_digest,
                "settings_digest": finding.settings_digest,
                "event": plain(finding.recorded),
                "dispositions": [
                    {
                        "decision": row.decision,
                        "class": row.class_name,
                        "state": row.state,
                        "person": row.person,
                        "at": plain(row.created_at),
                        "reason": row.reason,
                        "signature_digest": (row.signature or {}).get("digest"),
                        "event": event(row.event_sequence),
                        "second_person": None
                        if row.approval is None
                        else {
                            "decision": row.approval.decision,
                            "person": row.approval.person,
                            "at": plain(row.approval.created_at),
                            "reason": row.approval.reason,
                            "signature_digest": row.approval.signature.get("digest"),
                            "event": event(row.approval.event_sequence),
                        },
                    }
                    for row in finding.history
                ],
            }
            for finding in picture.findings
        ],
    }
