"""A process as it is printed: judged, with its charts laid out."""

from dataclasses import dataclass

from reports.charts.control import ControlChart, TrendChart, control_chart, trend_chart
from reports.charts.scores import Histogram, score_histogram
from reports.content.process import Process, Unit
from reports.stats.control_chart import PChart
from reports.stats.drift import Drift
from reports.stats.nelson import RULES
from reports.wording import grouped

_HALF = 85.0  # mm, two charts side by side


@dataclass(frozen=True)
class ProcessView:
    """A process as it is printed. `points`: subgroups; `fired`: (rule, its wording, where it fired).

    `tiles`: the sentence on pictures with other numbers of tiles than the calibration set; else empty.
    """

    unit: Unit
    points: int
    calibrated: bool
    chart: PChart | None
    drawn: ControlChart | None
    fired: tuple[tuple[int, str, str], ...]
    own: tuple[Drift, ...]
    tiles: str
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
        if self.tiles:
            said.append(self.tiles)
        return " ".join(said)


def view_process(process: Process, thresholds: tuple[float, float | None] | None) -> ProcessView:
    """Return a process judged, with its charts laid out.

    `thresholds`: review and reject, see `charts.scores.score_histogram`; None where several are in force, for
    then scores have no common zones.
    """
    chart = process.chart
    drawn = [trend_chart(trend, width=_HALF) for trend in process.trends]
    return ProcessView(
        unit=process.unit,
        points=len(process.subgroups),
        calibrated=process.calibrated,
        chart=chart,
        drawn=None if chart is None else control_chart(chart),
        fired=()
        if chart is None
        else tuple((rule, RULES[rule], _last_labels(at)) for rule, at in chart.fired),
        own=process.own,
        tiles=process.tiles_sentence,
        trends=tuple(each for each in drawn if each is not None),
        histogram=score_histogram([("of this report", process.scores)], process.score_edges, *thresholds)
        if thresholds is not None and any(process.scores)
        else None,
    )


def _last_labels(labels: tuple[str, ...], most: int = 6) -> str:
    """Return the last few of many labels, and how many are earlier."""
    left = len(labels) - most
    shown = ", ".join(labels[-most:])
    return f"{grouped(left)} earlier, {shown}" if left > 0 else shown
