"""The model report composed as a document: what a model was made from, how well it does, where it fails."""

from reports import wording
from reports.attached import Supplement, attach
from reports.charts_confusion import confusion_chart
from reports.charts_scores import Histogram, Interval, IntervalChart, interval_chart, score_histogram
from reports.document import Document, FindingPages, Part, finding_anchor
from reports.model_report import ModelReport
from reports.model_wording import conclude_model, leak_banner, not_examined, overlap_sentence

_MOST_CLASSES = 40  # in a chart of rates
_MOST_ROWS = 20  # of mistakes listed one by one; all of them are counted

_CONTENTS = (
    ("identification", "1", "Identification"),
    ("data", "2", "Data and training"),
    ("calibration", "3", "Calibration"),
    ("examination", "4", "Examination"),
    ("fails", "5", "Where it fails"),
    ("maps-quality", "6", "Quality of the maps"),
    ("field", "7", "In inspection"),
    ("limits", "8", "Limits and use"),
    ("maps", "9", "Limits of maps"),
    ("sign-off", "10", "Sign-off"),
    ("history", "11", "Revision history"),
    ("record", "12", "Audit record"),
    ("annex", "13", "How it was made"),
)

_MEANINGS = {
    "ebpg": "share of the map’s weight that lies on the defect",
    "miou": "overlap of the map’s top 20 % of pixels with the defect: small defects cannot score high",
    "drop": "share of the score lost when only the map’s best pixels are left, the rest cut out hard",
    "increase": "maps whose best pixels alone score higher than the whole picture",
    "insertion": "area under the score as the map’s best pixels are shown first",
    "deletion": "area under the score as the map’s best pixels are taken away first",
}


def compose_model(record: ModelReport, supplement: Supplement | None = None) -> Document:
    """Compose a model's report: the verdict and what was not examined, the evidence, the worst mistakes."""
    conclusion = conclude_model(record)
    organisation = record.organisation or "kensa"
    examination = record.examination
    cases = () if examination is None else examination.cases
    context = {
        "r": record,
        "organisation": organisation,
        "conclusion": conclusion,
        "claims": tuple((name[:1].upper() + name[1:], share) for name, share in record.claims),
        "rates": _rates(record),
        "histogram": _histogram(record),
        "confusion": None
        if examination is None or not examination.confusion
        else confusion_chart(record.model.classes, examination.confusion),
        "gaps": not_examined(record),
        "leak": None if examination is None else leak_banner(examination),
        "overlaps": [] if examination is None else [overlap_sentence(one) for one in examination.overlaps],
        "contents": _CONTENTS,
        "cases": bool(cases),
        "anchors": {
            (case.mistake.kind, case.mistake.uri): finding_anchor(number)
            for number, case in enumerate(cases, start=1)
        },
        "most_rows": _MOST_ROWS,
        "meanings": _MEANINGS,
        "sign_off": (
            (
                "Examined by",
                f"kensa {wording.clip(record.software_version, 40)}",
                conclusion.word,
                "by program",
                record.issued_at.astimezone(record.style.tzinfo).strftime(record.style.date_format),
            ),
            ("Reviewed by", None, None, None, None),
            ("Released by", None, None, None, None),
        ),
    }
    parts: list[Part | FindingPages] = [Part("model_front.html", context)]
    if cases:
        parts += [FindingPages(tuple(case.page for case in cases)), Part("model_back.html", context)]
    number = wording.clip(record.number, 40)
    return Document(
        title=f"{wording.clip(record.title, 120)} {number}, revision {record.revision}",
        reference=record.number,
        revision=record.revision,
        author=wording.clip(organisation, 120),
        subject=f"Model {wording.clip(record.model.name, 60)}: {conclusion.word}",
        software_version=wording.clip(record.software_version, 60),
        issued_at=record.issued_at,
        style=record.style,
        alarm=None if record.standing == "met" else conclusion.word,
        head=(
            f"{wording.clip(record.number, 24)}, revision {record.revision}",
            f"Model {wording.clip(record.model.name, 36)}",
            f"Version {wording.short_digest(record.model.digest)}",
        ),
        foot=_foot(record, organisation),
        parts=tuple(parts),
        attached=attach(
            "model",
            record,
            supplement,
            conclusion=conclusion,
            reasons=not_examined(record),
            checkpoint=None if record.checkpoint is None else record.checkpoint.note,
        ),
    )


def _rates(record: ModelReport) -> IntervalChart | None:
    """Draw each class's escapes, of the classes that were examined."""
    if record.examination is None:
        return None
    rates = [
        Interval(one.name, one.escaped.total, one.escaped.measured, one.escaped.low, one.escaped.high)
        for one in record.examination.classes
        if one.escaped is not None and one.escaped.total
    ]
    return interval_chart(rates[:_MOST_CLASSES], what="Escape rate of each class with its 95 % interval")


def _histogram(record: ModelReport) -> Histogram | None:
    examination, calibration = record.examination, record.calibration
    if examination is None or calibration is None or not examination.good_scores:
        return None
    groups = (("good", examination.good_scores), ("defective", examination.defective_scores))
    return score_histogram(groups, calibration.review, calibration.reject)


def _foot(record: ModelReport, organisation: str) -> str:
    foot = wording.clip(organisation, 50)
    if record.audit_head is None:
        return foot
    head = record.audit_head
    return f"{foot}   audit head {wording.grouped(head.sequence)} {wording.short_digest(head.hash)}"
