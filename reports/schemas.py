"""The schema of the records that reports carry, made from the records' own types.

The file in `reports/schemas` is the published one. A test compares it with the types: who changes a record
runs `python -m reports.schemas` and, where a reader of older reports could no longer read it, raises the
version in `reports.attached.FORMAT`.
"""

import json
from pathlib import Path

from reports.attached import FORMAT, SCHEMA
from reports.dossier import Dossier
from reports.model_report import ModelReport
from reports.period import PeriodReport
from reports.plain import schema_of
from reports.record import RunReport

KINDS: dict[str, type] = {
    "run": RunReport,
    "period": PeriodReport,
    "finding": Dossier,
    "part": Dossier,
    "model": ModelReport,
}


def schema_text() -> str:
    """Give the schema of all kinds of reports."""
    schema = schema_of(KINDS, FORMAT, "What a report of kensa says")
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(__file__).parent.joinpath("schemas", SCHEMA).write_text(schema_text(), encoding="utf-8")
