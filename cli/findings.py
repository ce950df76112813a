"""The command that lists findings."""

from cli.console import Format, print_page, safe
from cli.filters import filter_text, filtered
from cli.options import Before, Config, Form, Limit, Overrides, open_record, settings_of
from db.queries.finding_records import FindingRecord
from db.queries.findings import FindingFilter, find_findings


@filtered(FindingFilter)
def findings(
    config: Config = None,
    overrides: Overrides = None,
    *,
    wanted: FindingFilter,
    limit: Limit = 50,
    before: Before = None,
    form: Form = Format.table,
) -> None:
    """List flagged defects, newest first."""
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        wanted.require_known(session)
        rows = find_findings(session, wanted, limit=limit + 1, before=before)
    empty = f"no findings{safe(filter_text(wanted))}"
    print_page(rows, FindingRecord, FINDING_COLUMNS, form, limit, lambda f: f.reference, empty=empty)


FINDING_COLUMNS = {
    "finding": lambda f: f.reference,
    "image": lambda f: f.uri,
    "part": lambda f: f.part or "",
    "lot": lambda f: f.lot or "",
    "class": lambda f: f.class_name,
    "score": lambda f: f"{f.score:.3f}",
    "verdict": lambda f: f.verdict,
    "disposition": lambda f: (
        (f.disposition or "") + (f" ({f.awaiting_approval} awaits approval)" if f.awaiting_approval else "")
    ),
    "drop": lambda f: (
        "" if f.explanation is None or f.explanation.drop is None else f"{f.explanation.drop:.0f} %"
    ),
}
