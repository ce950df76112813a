"""The model report composed as a document: what a model was made from, how well it does, where it fails."""

from reports.attachments.manifest import Supplement
from reports.charts.confusion import confusion_chart
from reports.charts.scores import Histogram, IntervalChart, interval_chart, score_histogram
from reports.compose.assembly import assemble
from reports.content.model import Examination, ModelReport, Overlap, Share, Unit
from reports.document import Document, finding_anchor
from reports.wording import Conclusion, clip, day, grouped, percent, plural, short_digest

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
    examination = record.examination
    cases = () if examination is None else examination.cases
    gaps = not_examined(record)
    context = {
        "claims": tuple((name[:1].upper() + name[1:], share) for name, share in record.claims),
        "rates": _escape_chart(record),
        "histogram": _score_histogram(record),
        "confusion": None
        if examination is None or not examination.confusion
        else confusion_chart(record.model.classes, examination.confusion),
        "gaps": gaps,
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
                f"kensa {clip(record.software_version, 40)}",
                conclusion.word,
                "by program",
                day(record.issued_at, record.style),
            ),
            ("Reviewed by", None, None, None, None),
            ("Released by", None, None, None, None),
        ),
    }
    return assemble(
        record,
        "model",
        conclusion,
        context,
        supplement,
        about=f"Model {clip(record.model.name, 60)}",
        head=(f"Model {clip(record.model.name, 36)}", f"Version {short_digest(record.model.digest)}"),
        templates=("model_front.html", "model_back.html"),
        findings=tuple(case.page for case in cases),
        alarm=None if record.standing == "met" else conclusion.word,
        reasons=gaps,
    )


def _escape_chart(record: ModelReport) -> IntervalChart | None:
    """Return the chart of each examined class's escapes."""
    if record.examination is None:
        return None
    rates = [
        (one.name, one.escaped)
        for one in record.examination.classes
        if one.escaped is not None and one.escaped.total
    ]
    return interval_chart(rates[:_MOST_CLASSES], "Escape rate of each class with its 95 % interval")


def _score_histogram(record: ModelReport) -> Histogram | None:
    examination, calibration = record.examination, record.calibration
    if examination is None or calibration is None or not examination.good_scores:
        return None
    groups = (("good", examination.good_scores), ("defective", examination.defective_scores))
    return score_histogram(groups, examination.score_edges, *calibration.limits)


_TONES = {"met": "pass", "not met": "reject", "not shown": "review"}
_WORDS = {"met": "Targets met", "not met": "Targets not met", "not shown": "Targets not shown"}
# Pictures of a class below which the report warns: a class never missed in so few may still be missed in
# one of ten of its pictures (the upper 95 % bound of 0 of 29 is 10 %).
FEW = 29


def conclude_model(record: ModelReport) -> Conclusion:
    """Return whether the targets are met on pictures that the model has not seen, and why."""
    standing = record.standing
    return Conclusion(_TONES[standing], _WORDS[standing], _verdict_sentences(record))


def claim(name: str, share: Share, unit: Unit = "picture") -> str:
    """Return how a share of pictures, or of parts, stands to its target, in a sentence."""
    if share.measured is None or share.bound is None:
        return f"No {unit} shows the {name}."
    if unit == "part":
        name += " of parts"
    found = (
        f"The {name} was {percent(share.measured)} ({grouped(share.count)} of {grouped(share.total)}), "
        f"with 95 % confidence at most {percent(share.bound)}"
    )
    if share.target is None:
        return f"{found}; no target was set for it."
    target = f"; the target is {percent(share.target)}"
    if share.standing == "not shown":
        target += f", and {plural(share.total, unit)} are too few to show it"
    return f"{found}{target}."


def not_examined(record: ModelReport) -> list[str]:
    """Return what this report says nothing about, in sentences, the weightiest first."""
    gaps: list[str] = []
    examination = record.examination
    if record.calibration is None:
        gaps.append("How the model decides: it has no thresholds, and a picture gets no verdict from it.")
    if examination is None:
        gaps.append(
            "The model on pictures that it has not seen: no labelled pictures were named. The rates of the "
            "calibration are no substitute: the thresholds were chosen on those pictures."
        )
    else:
        gaps += _data_gaps(record, examination)
    if record.calibration is not None and record.calibration.zones.rejected_good.target is None:
        shown = "" if record.calibration.zones.rejected_good.total else ", and without a good picture"
        gaps.append(
            "How many good parts the model may flag or reject: it was calibrated without a target for "
            f"overkill{shown}."
        )
    if record.quality is None:
        gaps.append(f"Whether the maps can be trusted: {record.maps_gap or 'no map was made'}.")
    else:
        quality = record.quality
        if quality.judged < quality.flagged:
            gaps.append(
                f"The maps of {grouped(quality.flagged - quality.judged)} of "
                f"{plural(quality.flagged, 'finding')} on defective pictures: {grouped(quality.judged)} were "
                "drawn at random."
            )
        if not quality.with_mask:
            gaps.append("Whether the maps lie on the defects: no true pixels of defects were given.")
    if record.field is None:
        gaps.append("The model in inspection: no record of runs was read.")
    elif not record.field.runs:
        gaps.append("The model in inspection: it has not inspected anything yet.")
    gaps.append(
        "Kinds of defect that it has no class for, and pictures taken otherwise than those named here: other "
        "light, lens, distance, surface or product."
    )
    return gaps


def overlap_sentence(overlap: Overlap) -> str:
    """Return what was compared with one side of the data, and what was found, in words."""
    name = {"other": "other data named"}.get(overlap.role, f"{overlap.role} data")
    if overlap.source is None:
        return f"{name}: not checked, for the data was not at hand"
    source = clip(overlap.source, 80)
    proof = (
        ", the data that the package records"
        if overlap.proven
        else ", which is none of the data that the package records"
    )
    common = "no picture and no group"
    if overlap.found:
        common = f"{plural(overlap.pictures, 'picture')} and {plural(overlap.groups, 'group')}"
    return f"{name}: {common} in common (compared with {source}{proof})"


def leak_banner(examination: Examination) -> str | None:
    """Return the warning that examined pictures were seen before; None where none were found."""
    leaks = examination.leaks
    if not leaks:
        return None
    pictures, groups = max(one.pictures for one in leaks), max(one.groups for one in leaks)
    roles = ", ".join("other named" if one.role == "other" else one.role for one in leaks)
    return (
        f"Examined pictures are not new to the model: up to {plural(pictures, 'picture')} and "
        f"{plural(groups, 'group')} (parts or lots) are also in the {roles} data. Rates measured on them "
        "look better than the model is."
    )


def _verdict_sentences(record: ModelReport) -> str:
    if record.calibration is None:
        return "The model has no thresholds, so it decides nothing and has no targets to meet."
    if record.examination is None:
        zones = record.calibration.zones
        rejected = (
            f"{grouped(zones.rejected_good.count)} of {plural(zones.rejected_good.total, 'good one')} were "
            "rejected"
        )
        if not zones.rejected_good.total:
            rejected = "overkill was not measured, for none of them is good"
        return (
            "No pictures that the model has not seen were examined. On its calibration "
            f"{record.unit}s {grouped(zones.escape.count)} of "
            f"{plural(zones.escape.total, 'defective one')} passed, and "
            f"{rejected}."
        )
    sentences = [claim(name, share, record.unit) for name, share in record.claims]
    if record.examination.leaks and record.standing != "not met":
        sentences.insert(0, "Examined pictures are among those that the model was made from.")
    return " ".join(sentences)


def _data_gaps(record: ModelReport, examination: Examination) -> list[str]:
    gaps = []
    unchecked = [one.role for one in examination.overlaps if one.source is None]
    if unchecked:
        gaps.append(
            f"Whether examined pictures are among the model’s {' and '.join(unchecked)} data: not checked, "
            "for that data was not at hand."
        )
    if not examination.overlaps:
        gaps.append(
            "Whether examined pictures were used to make the model: not checked, for the package does not "
            "say what it was made from."
        )
    absent = [
        one.name for one in examination.classes if not one.pictures and _may_be_missed(record, one.name)
    ]
    if absent:
        gaps.append(f"Classes without an examined picture: {_name_list(absent)}.")
    few = [one for one in examination.classes if 0 < one.pictures < FEW and _may_be_missed(record, one.name)]
    if few:
        said = [f"{clip(one.name, 60)} ({plural(one.pictures, 'picture')})" for one in few]
        gaps.append(
            "Classes with so few pictures that missing one defect in ten would not be noticed: "
            f"{_name_list(said)}."
        )
    if not examination.good:
        gaps.append("Good parts: no examined picture shows one, so overkill is unknown.")
    if not examination.defective:
        gaps.append("Defects: no examined picture shows one, so escape is unknown.")
    return gaps


def _may_be_missed(record: ModelReport, name: str) -> bool:
    """Return whether a class is a defect: overlooking it is an escape."""
    return name != record.model.good_class


def _name_list(names: list[str], most: int = 8) -> str:
    shown = ", ".join(clip(name, 80) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {grouped(len(names) - most)} more"
