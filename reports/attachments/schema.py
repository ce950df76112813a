"""The schema of the records that reports carry, made from the records' own types.

The file in `reports/schemas` is the published one. A test compares it with the types: who changes a record
runs `python -m reports.attachments.schema` and, where a reader of older reports could no longer read it,
raises the version in `manifest.FORMAT`.
"""

import json
from importlib.resources import files
from pathlib import Path

from reports.attachments.manifest import FORMAT, SCHEMA
from reports.attachments.record_json import schema_of
from reports.content.dossier import Dossier
from reports.content.inspection import RunReport
from reports.content.model import ModelReport
from reports.content.period import PeriodReport

KINDS: dict[str, type] = {
    "run": RunReport,
    "period": PeriodReport,
    "finding": Dossier,
    "part": Dossier,
    "model": ModelReport,
}

# Where each class lay in kensa 0.1.0. The schema says so in a $comment and is part of every report's bytes: a
# class may move, what is printed of it may not. Classes that came later are not listed and have no comment.
_PRINTED = {
    "reports.agreement": "Agreement",
    "reports.document": "Style",
    "reports.dossier": "Dossier DecidedBy PictureLine Entry Occurrence ReplayLine",
    "reports.drift": "Trend Reference Drift Sample",
    "reports.finding": "FindingPage Explanation LayerMasks Decided Labelled",
    "reports.model_report": (
        "ModelReport ModelVersion DataSide Training Calibration Zones Share PictureStatistic Examination "
        "Overlap ClassResult Bin Mistake Case GroupResult MapQuality Metric FieldExperience FieldClass"
    ),
    "reports.period": "PeriodReport Scope RunLine ModelInForce",
    "reports.process": "Revision SignOff Process Review",
    "reports.record": "RunReport AuditHead SignedCheckpoint Counts Model Criteria Criterion Rate",
    "reports.spc": "Subgroup PChart ControlPoint",
}
_HOMES = {name: f"{module}.{name}" for module, names in _PRINTED.items() for name in names.split()}


def schema_text() -> str:
    """Return the schema of all kinds of reports."""
    schema = schema_of(KINDS, FORMAT, "What a report of kensa says")
    for name, entry in schema["$defs"].items():
        del entry["$comment"]
        if name in _HOMES:
            schema["$defs"][name] = {"$comment": _HOMES[name], **entry}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    published = Path(str(files("reports").joinpath("schemas", SCHEMA)))
    published.write_text(schema_text(), encoding="utf-8")
