"""How the process behind a report runs: flagged pictures over time, drift, decisions, what changed."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

from reports.agreement import Agreement, agreement
from reports.charts_control import ControlChart, TrendChart, control_chart, trend_chart
from reports.charts_scores import Histogram, score_histogram
from reports.drift import Drift, Trend
from reports.errors import ReportError
from reports.nelson import RULES
from reports.spc import PChart, Subgroup, p_chart
from reports.wording import grouped, plural

Unit = Literal["run", "day", "stretch"]

_HALF = 85.0  # mm, two charts side by side


@dataclass(frozen=True)
class Process:
    """Subgroups and trends in the order of time.

    `unit`: what a subgroup is; a stretch is a number of consecutive pictures of one run. `subgroups` count
    pictures with a verdict and those of them that did not pass. `trends` compare the subgroups' statistics
    with the calibration set, `own` those of all the report's pictures; a model that was calibrated without
    them has none. `scores`: pictures of the report by score, in equal bins over [0, 1].
    """

    RECORDED: ClassVar = ("chart",)

    unit: Unit
    subgroups: tuple[Subgroup, ...]
    trends: tuple[Trend, ...] = ()
    own: tuple[Drift, ...] = ()
    scores: tuple[int, ...] = ()

    @property
    def chart(self) -> PChart | None:
        """The control chart of the subgroups; None with fewer than two."""
        return p_chart(self.subgroups) if len(self.subgroups) > 1 else None


@dataclass(frozen=True)
class ProcessView:
    """A process as it is printed. `fired`: (rule, its wording, where it fired)."""

    unit: Unit
    chart: PChart | None
    drawn: ControlChart | None
    fired: tuple[tuple[int, str, str], ...]
    own: tuple[Drift, ...]
    trends: tuple[TrendChart, ...]
    histogram: Histogram | None

    @property
    def drifted(self) -> tuple[Drift, ...]:
        """Statistics of the report's own pictures with a sign of drift."""
        return tuple(each for each in self.own if each.warned)

    @property
    def alarm(self) -> str:
        """What the first page says of the process; empty where there is nothing to say."""
        said = []
        if self.chart is not None:
            present = self.chart.present
            if present.rules if present is not None else self.fired:
                said.append(self.chart.sentence)
        if self.drifted:
            names = ", ".join(each.statistic for each in self.drifted)
            said.append(f"Signs of drift against the calibration set: {names}.")
        return " ".join(said)


def view_process(process: Process, thresholds: tuple[float, float] | None) -> ProcessView:
    """Judge a process and lay its charts out.

    `thresholds`: review and reject; None where several are in force, for then scores have no common zones.
    """
    chart = process.chart
    drawn = [trend_chart(trend, width=_HALF) for trend in process.trends]
    return ProcessView(
        unit=process.unit,
        chart=chart,
        drawn=None if chart is None else control_chart(chart),
        fired=() if chart is None else tuple((rule, RULES[rule], _some(at)) for rule, at in chart.fired),
        own=process.own,
        trends=tuple(each for each in drawn if each is not None),
        histogram=score_histogram([("of this report", process.scores)], *thresholds)
        if thresholds is not None and any(process.scores)
        else None,
    )


@dataclass(frozen=True)
class Review:
    """What people have decided about the findings of a report so far.

    `decisions`: the decision in effect of each finding that has one. `awaiting`: findings with a decision
    that a second person has yet to approve. `pairs`: for each finding that two people judged, the judgements
    of the first and of the second.
    """

    RECORDED: ClassVar = ("open", "by_decision", "agreement", "sentence")

    findings: int
    decisions: tuple[str, ...] = ()
    awaiting: int = 0
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if max(len(self.decisions), self.awaiting) > self.findings:
            raise ReportError(
                f"review: {len(self.decisions)} decisions in effect and {self.awaiting} awaiting approval "
                f"about {plural(self.findings, 'finding')}; count again"
            )

    @property
    def open(self) -> int:
        """Findings without a decision in effect."""
        return self.findings - len(self.decisions)

    @property
    def by_decision(self) -> tuple[tuple[str, int], ...]:
        """How many findings have which decision in effect, most frequent first, ties by name."""
        return tuple(sorted(Counter(self.decisions).items(), key=lambda item: (-item[1], item[0])))

    @property
    def agreement(self) -> Agreement | None:
        """How far two people agree who judged the same findings."""
        return agreement(self.pairs)

    @property
    def sentence(self) -> str:
        """How far people have decided; empty where there is nothing to decide."""
        if not self.findings:
            return ""
        if not self.decisions:
            told = f"No person has decided about {'it' if self.findings == 1 else 'them'} yet."
        else:
            each = ", ".join(f"{grouped(n)} {_DECIDED[name]}" for name, n in self.by_decision)
            left = f"; {grouped(self.open)} open" if self.open else ""
            told = (
                f"{grouped(len(self.decisions))} of {plural(self.findings, 'finding')} decided: {each}{left}."
            )
        if self.awaiting:
            await_ = "awaits" if self.awaiting == 1 else "await"
            told += f" {plural(self.awaiting, 'decision')} {await_} a second person."
        return told


@dataclass(frozen=True)
class Revision:
    """One revision of a report: when it was issued, SHA-256 of its bytes, what changed since the one before.

    The report's own digest is not known while it is made.
    """

    number: int
    issued_at: datetime
    digest: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignOff:
    """A person's sign-off of an earlier revision. `capacity`: reviewed or approved."""

    revision: int
    capacity: str
    name: str
    decision: str
    reason: str
    at: datetime


def _some(labels: tuple[str, ...], most: int = 6) -> str:
    """Name the last few of many."""
    left = len(labels) - most
    shown = ", ".join(labels[-most:])
    return f"{grouped(left)} earlier, {shown}" if left > 0 else shown


_DECIDED = {
    "confirm": "confirmed",
    "overrule": "overruled",
    "reclassify": "reclassified",
    "use-as-is": "to use as is",
    "rework": "to rework",
    "repair": "to repair",
    "scrap": "to scrap",
    "return": "to return",
}
