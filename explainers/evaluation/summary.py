"""From outcomes to the paper's table: means with bootstrap intervals, and how many maps they rest on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from explainers.evaluation.measures import ATTAINABLE, CHANCE, MEASURES
from explainers.evaluation.outcomes import FAILED, LEFT_OUT, Outcome
from explainers.explanation import OK, PARTIAL, UNDEFINED

RESAMPLES = 2000
STATUSES = (OK, PARTIAL, UNDEFINED, FAILED)


@dataclass(frozen=True)
class Cell:
    """One value of the table.

    Attributes:
        mean: over the maps, in the units of the metric.
        low: lower end of the 95 % interval; None where there is one group alone.
        high: its upper end.
        median: over the maps.
        count: maps it rests on.
    """

    mean: float
    low: float | None
    high: float | None
    median: float
    count: int


@dataclass(frozen=True)
class Summary:
    """What an evaluation found.

    Attributes:
        explainers: the columns, in order.
        cells: metric -> explainer -> cell; an explainer without any value of a metric has no cell.
        statuses: explainer -> "ok", "partial", "undefined", "failed" -> number of maps.
        left_out: reason -> samples that were not evaluated, those that could not be read among them.
        reasons: explainer -> reason of failure -> number of maps.
        samples: evaluated pairs of picture and class.
        images: evaluated pictures.
        groups: what was resampled.
        reference: the explainer that maps are compared with, or None.
        chance: metric -> its mean over the pairs for a map that is the same everywhere; a metric without such
            a level, or whose maps were measured before kensa kept it, has none.
        attainable: metric -> its mean for the best map that there could be; likewise.
        tolerance: of the pointing game, in pixels of the network's input.
    """

    explainers: tuple[str, ...]
    cells: dict[str, dict[str, Cell]]
    statuses: dict[str, dict[str, int]]
    left_out: dict[str, int]
    reasons: dict[str, dict[str, int]]
    samples: int
    images: int
    groups: int
    reference: str | None
    chance: dict[str, float]
    attainable: dict[str, float]
    tolerance: float

    @property
    def failures(self) -> int:
        """Number of maps that could not be made or measured, and of samples that could not be read."""
        unread = sum(count for reason, count in self.left_out.items() if reason.startswith(FAILED))
        return unread + sum(counts[FAILED] for counts in self.statuses.values())

    def best(self, metric: str) -> frozenset[str]:
        """Return the explainers with the best mean of a metric, as it is printed; several where they tie."""
        measure = MEASURES[metric]
        means = {name: round(cell.mean, measure.digits) for name, cell in self.cells[metric].items()}
        if measure.better is None or not means:
            return frozenset()
        best = max(means.values()) if measure.better == "high" else min(means.values())
        return frozenset(name for name, mean in means.items() if mean == best)


def summarise(
    outcomes: Sequence[Outcome],
    explainers: Sequence[str],
    metrics: Sequence[str],
    *,
    reference: str | None = None,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Summary:
    """Return the table of an evaluation's outcomes.

    A mean is over the maps that have the metric; undefined and failed ones are counted, not averaged. The
    interval is the 95 % percentile bootstrap of the mean over groups (all maps of a group together).

    Args:
        outcomes: of one evaluation, under one plan.
        explainers: labels, in the order of the columns.
        metrics: in the order of the rows.
        reference: the explainer that maps are compared with.
        tolerance: of the pointing game, in pixels.
        seed: of the bootstrap.
    """
    made = [outcome for outcome in outcomes if outcome.explainer]
    cells: dict[str, dict[str, Cell]] = {metric: {} for metric in metrics}
    for metric in metrics:
        for explainer in explainers:
            found = [
                (outcome.group, value)
                for outcome in made
                if outcome.explainer == explainer and (value := outcome.values.get(metric)) is not None
            ]
            if found:
                cells[metric][explainer] = _bootstrapped_cell(found, seed)
    statuses = {explainer: dict.fromkeys(STATUSES, 0) for explainer in explainers}
    reasons: dict[str, Counter[str]] = {explainer: Counter() for explainer in explainers}
    for outcome in made:
        kind, _, reason = outcome.status.partition(": ")
        statuses[outcome.explainer][kind] += 1
        if kind == FAILED:
            reasons[outcome.explainer][reason] += 1
    left_out = Counter(
        outcome.status.removeprefix(f"{LEFT_OUT}: ") for outcome in outcomes if not outcome.explainer
    )
    return Summary(
        explainers=tuple(explainers),
        cells=cells,
        statuses=statuses,
        left_out=dict(left_out),
        reasons={explainer: dict(counts) for explainer, counts in reasons.items() if counts},
        samples=len({(outcome.image, outcome.label) for outcome in made}),
        images=len({outcome.image for outcome in made}),
        groups=len({outcome.group for outcome in made}),
        reference=reference,
        chance=_mean_limits(made, metrics, CHANCE),
        attainable=_mean_limits(made, metrics, ATTAINABLE),
        tolerance=tolerance,
    )


def _mean_limits(outcomes: Sequence[Outcome], metrics: Sequence[str], kind: str) -> dict[str, float]:
    """Return the mean of a metric's limit over the pairs of picture and class, where all of them have it."""
    means = {}
    for metric in metrics:
        found = {
            (outcome.image, outcome.label): outcome.values.get(metric + kind)
            for outcome in outcomes
            if outcome.values.get(metric) is not None
        }
        values = [value for value in found.values() if value is not None]
        if values and len(values) == len(found):
            means[metric] = sum(values) / len(values)
    return means


def _bootstrapped_cell(found: Sequence[tuple[str, float]], seed: int) -> Cell:
    groups: dict[str, list[float]] = defaultdict(list)
    for group, value in found:
        groups[group].append(value)
    sums = np.array([sum(values) for values in groups.values()])
    counts = np.array([len(values) for values in groups.values()], dtype=float)
    values = np.array([value for _, value in found])
    low = high = None
    if len(groups) > 1:
        interval = bootstrap(
            (sums, counts),
            _mean_of_groups,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=100,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Cell(float(values.mean()), low, high, float(np.median(values)), len(values))


def _mean_of_groups(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], axis: int = -1
) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = sums.sum(axis=axis) / counts.sum(axis=axis)
    return ratio
