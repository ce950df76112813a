"""How the process behind a report runs, and what people decided: the record of it."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

from reports.errors import ReportError
from reports.stats.agreement import Agreement, agreement
from reports.stats.control_chart import PChart, Subgroup, p_chart
from reports.stats.drift import Drift, Trend
from reports.wording import grouped, plural, verb

Unit = Literal["run", "day", "stretch"]
_TOLD = 6  # numbers of tiles that are told one by one


@dataclass(frozen=True)
class Process:
    """Subgroups and trends in the order of time.

    `unit`: what a subgroup is; a stretch is a number of consecutive pictures of one run. `subgroups` count
    pictures with a verdict and those of them that did not pass. `trends` compare the subgroups' statistics
    with the calibration set, `own` those of all the report's pictures. `calibrated`: whether the model that
    decided knows these figures of its calibration set; without them, or without pictures, nothing is
    compared. `scores`: pictures of the report by score, each number between two of `score_edges`.
    `other_tiles`: (tiles, pictures) of pictures with as many tiles as no picture of the calibration set had.
    """

    RECORDED: ClassVar = ("chart", "tiles_sentence")

    unit: Unit
    subgroups: tuple[Subgroup, ...]
    trends: tuple[Trend, ...] = ()
    own: tuple[Drift, ...] = ()
    scores: tuple[int, ...] = ()
    score_edges: tuple[float, ...] = ()
    calibrated: bool = False
    other_tiles: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.scores and len(self.score_edges) != len(self.scores) + 1:
            raise ReportError(
                f"process: {len(self.scores)} counts of scores lie between {len(self.scores) + 1} edges, not "
                f"{len(self.score_edges)}"
            )

    @property
    def chart(self) -> PChart | None:
        """The control chart of the subgroups; None with fewer than two."""
        return p_chart(self.subgroups) if len(self.subgroups) > 1 else None

    @property
    def tiles_sentence(self) -> str:
        """How many pictures have other numbers of tiles than the calibration set; empty where none has."""
        if not self.other_tiles:
            return ""
        pictures = sum(count for _, count in self.other_tiles)
        shown = ", ".join(grouped(tiles) for tiles, _ in self.other_tiles[:_TOLD])
        left = len(self.other_tiles) - _TOLD
        others = f" and {plural(left, 'other number')}" if left > 0 else ""
        told = f"{plural(pictures, 'picture')} {verb(pictures, 'has', 'have')} a number of tiles"
        return f"{told} that no picture of the calibration set had: {shown}{others}."


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
            awaits = verb(self.awaiting, "awaits", "await")
            told += f" {plural(self.awaiting, 'decision')} {awaits} a second person."
        return told


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
