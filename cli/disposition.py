"""The command by which people decide about a finding, sign, approve, refuse, and read what was decided."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated

import typer

from cli.console import Format, out, print_rows, print_table, print_to_sign, safe, when
from cli.options import Config, Form, Overrides, open_record, settings_of
from cli.sign_in import PasswordStdin, sign_in
from configs.loading import ConfigError
from configs.schema import Settings
from db.dispositions.decide import Decision, approve, dispose, dispose_list, refuse
from db.dispositions.history import DispositionRecord, FindingState, finding_state
from db.engine import Database
from db.queries.finding_records import FindingRecord, get_finding
from db.retention.inventory import many
from operations.decision_list import check_decisions, read_decisions


def disposition(
    finding: Annotated[
        str | None, typer.Argument(help="The finding, such as R000012-0003; none with --from.")
    ] = None,
    decision: Annotated[
        str | None,
        typer.Option(
            help="confirm, overrule, reclassify, use-as-is, rework, repair, scrap or return: "
            "what may follow what is in docs/dispositions.md."
        ),
    ] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="The class, for reclassify.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why: a sentence that an auditor understands.")] = None,
    as_login: Annotated[
        str | None, typer.Option("--as", help="Login of who signs; the password is asked for.")
    ] = None,
    approving: Annotated[
        bool, typer.Option("--approve", help="As the second person: put the pending decision into effect.")
    ] = False,
    refusing: Annotated[
        bool, typer.Option("--refuse", help="As the second person: refuse the pending decision.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="Show all that was decided.")] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="CSV of many decisions (finding, decision, reason, class): all or none, one signature.",
        ),
    ] = None,
    password_stdin: PasswordStdin = False,
    config: Config = None,
    overrides: Overrides = None,
    form: Form = Format.table,
) -> None:
    """Decide about a finding, or a table of them, and sign; answer another's decision; show the history."""
    if [decision is not None, approving, refusing, history, table is not None].count(True) != 1:
        raise ConfigError("give one of --decision, --approve, --refuse, --history and --from")
    settings = settings_of(config, overrides)
    if table is not None:
        if finding is not None or class_name is not None or reason is not None:
            raise ConfigError("--from: the table names findings, classes and reasons; give none beside it")
        if as_login is None:
            raise ConfigError("a list of decisions is signed: give --as LOGIN")
        _decide_list(settings, table, as_login, password_stdin)
        return
    if finding is None:
        raise ConfigError("say which finding, such as R000012-0003")
    with open_record(settings) as database:
        with database.session() as session:
            state = finding_state(session, finding)
            shown = get_finding(session, finding)
        if history:
            print_rows(
                state.history,
                DispositionRecord,
                HISTORY_COLUMNS,
                form,
                empty=f"{safe(finding)}: nothing decided yet",
            )
            return
        if as_login is None or reason is None:
            raise ConfigError("a decision is signed and has a reason: give --as LOGIN and --reason TEXT")
        if decision is not None:
            # Refused before anybody types a password; checked again when it is written.
            state.check(decision, class_name, reason)
            four_eyes = frozenset[str](settings.dispositions.four_eyes)
            _print_decision(
                shown, state, decision, class_name, reason, "responsibility", decision in four_eyes
            )
            signer = sign_in(database, as_login, password_stdin)
            made = dispose(
                database,
                finding,
                decision=decision,
                class_name=class_name,
                reason=reason,
                signer=signer,
                four_eyes=four_eyes,
                seen=state,
            )
        else:
            made = _answer(database, shown, state, reason, as_login, approving, password_stdin)
    _print_signed(made, approving or refusing)


def _decide_list(settings: Settings, table: Path, login: str, password_stdin: bool) -> None:
    """Show a table of decisions, and record all of them under one signature."""
    listed = read_decisions(table)
    four_eyes = frozenset[str](settings.dispositions.four_eyes)
    with open_record(settings) as database:
        with database.session() as session:
            states = check_decisions(session, table, listed)
            shown = [(each.decision, get_finding(session, each.decision.finding)) for each in listed]
        out.print(f"[bold]to be signed[/bold]: {many(len(listed), 'decision')}, meaning responsibility")
        print_table(shown, _list_columns(states, four_eyes), empty="")
        signer = sign_in(database, login, password_stdin)
        decisions = [each.decision for each in listed]
        made = dispose_list(database, decisions, signer=signer, four_eyes=four_eyes, seen=states)
    signature = made[0].signature or {}
    counts = Counter(each.decision for each in made)
    waiting = sum(each.state == "pending" for each in made)
    awaits = f"; {waiting} of them await approval by a quality manager" if waiting else ""
    out.print(
        f"signed by {safe(str(signature.get('name')))}: {many(len(made), 'decision')} "
        f"({', '.join(f'{count} {name}' for name, count in counts.items())}){awaits}\n"
        f"signature {str(signature.get('digest'))[:12]}, {signature.get('at')}"
    )


def _list_columns(
    states: Mapping[str, FindingState], four_eyes: Collection[str]
) -> dict[str, Callable[[tuple[Decision, FindingRecord]], str]]:
    def in_effect(pair: tuple[Decision, FindingRecord]) -> str:
        now = states[pair[0].finding].in_effect
        return "" if now is None else f"{now.decision} by {now.person}"

    def decision(pair: tuple[Decision, FindingRecord]) -> str:
        wanted = pair[0]
        named = f" as {wanted.class_name}" if wanted.class_name else ""
        return wanted.decision + named + (" (awaits approval)" if wanted.decision in four_eyes else "")

    return {
        "finding": lambda pair: pair[0].finding,
        "picture": lambda pair: f"{pair[1].uri} {pair[1].image_digest[:12]}",
        "part": lambda pair: pair[1].part or "",
        "lot": lambda pair: pair[1].lot or "",
        "class": lambda pair: pair[1].class_name,
        "score": lambda pair: f"{pair[1].score:.3f}",
        "in effect": in_effect,
        "decision": decision,
        "reason": lambda pair: pair[0].reason,
    }


def _answer(
    database: Database,
    shown: FindingRecord,
    state: FindingState,
    reason: str,
    login: str,
    approving: bool,
    password_stdin: bool,
) -> DispositionRecord:
    pending = state.awaiting(login)
    meaning = "approval" if approving else "refusal"
    _print_decision(shown, state, pending.decision, pending.class_name, reason, meaning, False)
    out.print(f"  decided by   {safe(pending.person)} on {when(pending.created_at)}: {safe(pending.reason)}")
    signer = sign_in(database, login, password_stdin)
    act = approve if approving else refuse
    return act(database, state.signed.reference, reason=reason, signer=signer, seen=state)


def _print_decision(
    finding: FindingRecord,
    state: FindingState,
    decision: str,
    class_name: str | None,
    reason: str,
    meaning: str,
    needs_approval: bool,
) -> None:
    """Print what is about to be signed."""
    now = state.in_effect
    print_to_sign(
        {
            "finding": finding.reference,
            "picture": f"{finding.uri}, SHA-256 {finding.image_digest[:12]}…",
            "part": f"{finding.part or 'not given'}, lot {finding.lot or 'not given'}",
            "class": f"{finding.class_name}, class score {finding.class_score:.3f}",
            "score": f"{finding.score:.3f} of the picture, flagged from {finding.threshold:.3f}",
            "in effect": "nothing yet" if now is None else f"{now.decision} by {now.person}",
            "decision": decision + (f" as {class_name}" if class_name else ""),
            "reason": reason,
            "meaning": meaning + (", in effect when a second person approves" if needs_approval else ""),
        }
    )


def _print_signed(made: DispositionRecord, answered: bool) -> None:
    said = made.approval.signature if answered and made.approval else made.signature or {}
    state = "awaits approval by a quality manager" if made.state == "pending" else made.state
    out.print(
        f"signed by {safe(str(said.get('name')))}: {safe(made.finding)} {made.decision}, {state}\n"
        f"signature {str(said.get('digest'))[:12]}, {said.get('at')}"
    )


HISTORY_COLUMNS = {
    "time": lambda d: when(d.created_at),
    "decision": lambda d: d.decision + (f" as {d.class_name}" if d.class_name else ""),
    "person": lambda d: d.person,
    "reason": lambda d: d.reason,
    "state": lambda d: d.state,
    "second person": lambda d: (
        f"{d.approval.person}: {d.approval.decision}, {d.approval.reason}" if d.approval else ""
    ),
    "signature": lambda d: (d.signature or {}).get("digest", "")[:12],
}
