"""The command that lists findings."""

from cli.console import Format, print_page
from cli.options import (
    Before,
    ClassName,
    Config,
    Form,
    Image,
    Limit,
    Lot,
    MaxScore,
    MinScore,
    Model,
    Overrides,
    Part,
    Person,
    Reason,
    Run,
    Since,
    Station,
    Until,
    Verdict,
    open_record,
    utc,
)
from db.queries.findings import FindingFilter, find_findings


def findings(
    config: Config = None,
    overrides: Overrides = None,
    part: Part = None,
    lot: Lot = None,
    station: Station = None,
    image: Image = None,
    class_name: ClassName = None,
    verdict: Verdict = None,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    model: Model = None,
    person: Person = None,
    reason: Reason = None,
    run: Run = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    before: Before = None,
    form: Form = Format.table,
) -> None:
    """List flagged defects, newest first."""
    wanted = FindingFilter(
        part=part,
        lot=lot,
        station=station,
        image=image,
        class_name=class_name,
        verdict=verdict,
        min_score=min_score,
        max_score=max_score,
        model=model,
        person=person,
        reason=reason,
        run=run,
        since=utc(since),
        until=utc(until),
    )
    with open_record(config, overrides) as database, database.session() as session:
        rows = find_findings(session, wanted, limit=limit + 1, before=before)
    print_page(rows, FINDING_COLUMNS, form, limit, lambda f: f.reference, empty="no findings")


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
