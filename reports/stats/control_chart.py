"""Statistical process control of a share: p-chart, Laney's p' chart, exact binomial limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, fmean, median
from typing import ClassVar, Literal

from reports.errors import ReportError
from reports.stats.nelson import RULES, nelson
from reports.wording import clip, grouped, percent, plural, verb

Kind = Literal["p", "laney", "exact", "none"]

NAMES: dict[Kind, str] = {
    "p": "p-chart",
    "laney": "Laney p′ chart",
    "exact": "p-chart with exact binomial limits",
    "none": "run chart without limits",
}
SMALL = 5.0  # expected pictures of either kind below which the normal approximation is not trusted
LARGE = (
    500  # mean subgroup size from which the spread between subgroups, not the binomial one, makes the limits
)
TRIAL = 20  # reference subgroups below which limits are trial limits
_D2 = 1.128  # mean range of two standard normal values
_TAIL = NormalDist().cdf(-3.0)  # probability beyond one 3-sigma limit


@dataclass(frozen=True)
class Subgroup:
    """`x` of `n` pictures of one run (or shift, or day); limits are taken from the `reference` subgroups.

    `parts`: sums over its parts, of which each has n pictures with x that count: of x², of n x and of n²;
    None where each picture is a part of its own.
    """

    label: str
    n: int
    x: int
    reference: bool = True
    current: bool = False
    parts: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.x <= self.n:
            raise ReportError(f"subgroup {self.label!r}: {self.x} of {self.n} is not a share; count again")


@dataclass(frozen=True)
class ControlPoint:
    """A subgroup on the chart: its share and limits in [0, 1], z in standard deviations of the chart.

    `rules`: the rules whose pattern this point completes. Without limits, `lower`, `upper`, `z` are None.
    """

    label: str
    n: int
    x: int
    share: float
    lower: float | None
    upper: float | None
    z: float | None
    rules: tuple[int, ...]
    reference: bool
    current: bool

    @property
    def outside(self) -> bool:
        """Whether the point is beyond its limits."""
        return 1 in self.rules


@dataclass(frozen=True)
class PChart:
    """A control chart of a share.

    `reason` says why this `kind` was taken; `sigma_z` is Laney's ratio of the spread between subgroups to the
    binomial one (None with fewer than three reference subgroups); `applied` the rules that were tried.
    `design_effect`: how many pictures are worth one independent one, since those of a part are alike.
    Phase "I": limits from the charted points themselves; phase "II": from earlier points only.
    """

    RECORDED: ClassVar = ("name", "sentence", "fired")

    kind: Kind
    reason: str
    centre: float
    sigma_z: float | None
    phase: Literal["I", "II"]
    references: int
    points: tuple[ControlPoint, ...]
    applied: tuple[int, ...]
    warnings: tuple[str, ...]
    design_effect: float = 1.0

    @property
    def name(self) -> str:
        """What the chart is called."""
        return NAMES[self.kind]

    @property
    def present(self) -> ControlPoint | None:
        """The subgroup that the report is about, if it is one."""
        return next((point for point in self.points if point.current), None)

    @property
    def fired(self) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Each rule that fired, with the labels of the points at which it did."""
        return tuple(
            (rule, labels)
            for rule in RULES
            if (labels := tuple(point.label for point in self.points if rule in point.rules))
        )

    @property
    def sentence(self) -> str:
        """What the chart says, the present subgroup first."""
        if self.kind == "none":
            return "No limits can be drawn, so the chart cannot say whether the share is in control."
        elsewhere = sum(bool(point.rules) for point in self.points if not point.current)
        rest = "at no other point" if not elsewhere else f"at {plural(elsewhere, 'other point')}"
        now = self.present
        if now is None or now.lower is None or now.upper is None:
            if not elsewhere:
                return "No rule fired: the share varies no more than chance explains."
            return f"Rules fired at {plural(elsewhere, 'point')}: look for a special cause there."
        measured = f"{percent(now.share)} of {plural(now.n, 'picture')}"
        limits = f"{percent(now.lower)} to {percent(now.upper)}"
        if now.outside:
            side = "above" if now.share > self.centre else "below"
            others = "" if now.rules == (1,) else f", and {_rules_phrase(now.rules[1:])} fired"
            return (
                f"{clip(now.label, 60)} is out of control: {measured} is {side} its limits "
                f"({limits}){others}. Rules fired {rest}."
            )
        if now.rules:
            return (
                f"{clip(now.label, 60)} lies within its limits ({measured}, limits {limits}), but "
                f"{_rules_phrase(now.rules)} fired there; rules fired {rest}."
            )
        return (
            f"{clip(now.label, 60)} is in control: {measured}, limits {limits}, no rule fired; "
            f"rules fired {rest}."
        )


def p_chart(subgroups: Sequence[Subgroup]) -> PChart | None:
    """Chart the share x/n of each subgroup, oldest first, with limits from the reference subgroups.

    The centre line is the pooled share of the reference. Which limits are drawn follows from the reference:

    * "none": none or all of its pictures count, so it has no spread;
    * "exact": half of its subgroups or more expect fewer than five pictures of either kind. Limits are those
      of the binomial distribution that leave at most 0.135 % on either side, and only rule 1 is tried: the
      others assume z-scores that are about normal. z is the normal score of the mid-p-value;
    * "laney": subgroups are large (500 pictures on average), and sigma_z, the spread between them in units of
      the binomial one (mean moving range of the z-scores / 1.128), is above 1, or below it by more than 1.96
      of its standard errors. Limits are centre +- 3 sigma_z sqrt(p (1 - p) / n): Laney, D. B. (2002),
      Improved control charts for attributes, Quality Engineering 14 (4), 531-537. In small subgroups the
      binomial spread outweighs any other, and wider limits would hide single bad ones: a warning does there;
    * "p" otherwise: centre +- 3 sqrt(p (1 - p) / n).

    Pictures of one part are alike, and a share of them varies more than one of as many parts: everywhere n is
    that of independent pictures, the subgroup's over the design effect of the reference (Kish 1965), at
    least 1. Limits are kept within [0, 1]. Subgroups without a picture are left out and counted in a
    warning. None where no reference subgroup has a picture.
    """
    charted = [group for group in subgroups if group.n]
    references = [group for group in charted if group.reference]
    if not references:
        return None
    warnings = []
    if left := len(subgroups) - len(charted):
        warnings.append(f"{plural(left, 'subgroup')} without a picture {verb(left, 'was', 'were')} left out.")
    centre = sum(group.x for group in references) / sum(group.n for group in references)
    kind: Kind
    sigma_z = None
    design_effect = 1.0
    sizes: Sequence[float] = ()  # independent pictures that each subgroup is worth
    if centre in (0.0, 1.0):
        kind = "none"
        whole = "no" if centre == 0 else "every"
        reason = f"{whole} picture of the reference counts, so that it has no spread to draw limits from"
    else:
        design_effect = _design_effect(references, centre)
        sizes = [group.n / design_effect for group in charted]
        sigma_z = _sigma_z([_z_score(group, centre, group.n / design_effect) for group in references])
        kind, reason = _choose_kind(references, centre, sigma_z, design_effect)
        warnings += _cautions(charted, references, centre, kind, sigma_z, design_effect)
    limits: list[tuple[float, float]] = []  # empty where there is no spread to draw them from
    scores: list[float] = []
    rules: Sequence[tuple[int, ...]] = [()] * len(charted)
    if kind == "exact":
        limits = [_exact_limits(size, centre) for size in sizes]
        rules = [
            () if low <= group.x / group.n <= high else (1,)
            for group, (low, high) in zip(charted, limits, strict=True)
        ]
        scores = [_exact_z(group, centre, size) for group, size in zip(charted, sizes, strict=True)]
    elif kind != "none":
        width = sigma_z if kind == "laney" and sigma_z is not None else 1.0
        limits = [_normal_limits(size, centre, width) for size in sizes]
        scores = [_z_score(group, centre, size) / width for group, size in zip(charted, sizes, strict=True)]
        rules = nelson(scores)
    return PChart(
        kind=kind,
        reason=reason,
        centre=centre,
        sigma_z=sigma_z,
        phase="I" if len(references) == len(charted) else "II",
        references=len(references),
        points=tuple(
            ControlPoint(
                label=group.label,
                n=group.n,
                x=group.x,
                share=group.x / group.n,
                lower=limits[i][0] if limits else None,
                upper=limits[i][1] if limits else None,
                z=scores[i] if scores else None,
                rules=rules[i],
                reference=group.reference,
                current=group.current,
            )
            for i, group in enumerate(charted)
        ),
        applied={"none": (), "exact": (1,)}.get(kind, tuple(RULES)),
        warnings=tuple(warnings),
        design_effect=design_effect,
    )


def _design_effect(references: Sequence[Subgroup], centre: float) -> float:
    """Return the variance of the pooled share by parts over the binomial one; at least 1."""
    variance = 0.0
    for group in references:
        flagged, product, pictures = group.parts or (group.x, group.x, group.n)
        variance += flagged - 2 * centre * product + centre**2 * pictures
    if all(group.parts is None or group.parts[2] == group.n for group in references):
        return 1.0  # one picture a part: without the rounding
    return max(1.0, variance / (sum(group.n for group in references) * centre * (1 - centre)))


def _z_score(group: Subgroup, centre: float, size: float) -> float:
    return (group.x / group.n - centre) / sqrt(centre * (1 - centre) / size)


def _sigma_z(z: Sequence[float]) -> float | None:
    """Return the standard deviation of z-scores, from their moving ranges; None for fewer than three."""
    if len(z) < 3:
        return None
    return fmean(abs(b - a) for a, b in pairwise(z)) / _D2


def _sigma_z_error(count: int) -> float:
    """Return the standard error of `_sigma_z` for that many independent standard normal z-scores.

    Ranges that share a point are correlated: Cryer, J. D. and Ryan, T. P. (1990), The estimation of sigma for
    an X chart: MR/d2 or S/c4?, Journal of Quality Technology 22 (3), 187-192.
    """
    return sqrt(0.8264 * count - 1.082) / (count - 1)


def _choose_kind(
    references: Sequence[Subgroup], centre: float, sigma_z: float | None, design_effect: float
) -> tuple[Kind, str]:
    expected = median(_expected_count(group, centre) / design_effect for group in references)
    if expected < SMALL:
        return "exact", (
            f"half of the subgroups or more expect fewer than {SMALL:g} pictures of either kind (median "
            f"{expected:.1f}), too few for limits from the normal distribution"
        )
    if sigma_z is None:
        return "p", "there are too few subgroups to tell whether their spread exceeds the binomial one"
    found = f"sigma_z = {sigma_z:.2f}, standard error {_sigma_z_error(len(references)):.2f}"
    sizes = fmean(group.n for group in references)
    large = f"subgroups are large ({grouped(round(sizes))} pictures on average)"
    if sizes >= LARGE and sigma_z > 1:
        return "laney", f"{large} and vary more than binomial chance explains ({found})"
    if sizes >= LARGE and 0 < sigma_z < 1 - _chance_reach(references):
        return "laney", f"{large} and vary less than binomial chance explains ({found})"
    if sizes >= LARGE:
        return "p", f"{large} but vary about as binomial chance explains ({found})"
    return "p", f"subgroups are not large ({grouped(round(sizes))} pictures on average; {found})"


def _chance_reach(references: Sequence[Subgroup]) -> float:
    """Return the distance of sigma_z from 1 that chance exceeds one time in twenty."""
    return 1.96 * _sigma_z_error(len(references))


def _cautions(
    charted: Sequence[Subgroup],
    references: Sequence[Subgroup],
    centre: float,
    kind: Kind,
    sigma_z: float | None,
    design_effect: float,
) -> list[str]:
    cautions = []
    if design_effect > 1:
        cautions.append(
            f"Pictures of one part are alike: for the limits {design_effect:.1f} count as one independent "
            "picture (the design effect)."
        )
    if len(references) < TRIAL:
        cautions.append(
            f"The limits rest on {plural(len(references), 'subgroup')}; fewer than {TRIAL} give trial limits."
        )
    small = sum(_expected_count(group, centre) / design_effect < SMALL for group in charted)
    if kind == "exact":
        cautions.append("Only rule 1 was tried: with so few expected pictures the others raise false alarms.")
    elif small:
        cautions.append(
            f"{plural(small, 'subgroup')} {verb(small, 'expects', 'expect')} fewer than {SMALL:g} "
            "pictures of either kind: limits there are approximate."
        )
    if kind != "laney" and sigma_z is not None and sigma_z > 1 + _chance_reach(references):
        cautions.append(
            f"The reference varies more than binomial chance explains (sigma_z = {sigma_z:.2f}): it holds "
            "special causes, or the limits are too narrow."
        )
    return cautions


def _expected_count(group: Subgroup, centre: float) -> float:
    return group.n * min(centre, 1 - centre)


def _normal_limits(n: float, centre: float, width: float) -> tuple[float, float]:
    reach = 3 * width * sqrt(centre * (1 - centre) / n)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _exact_limits(size: float, centre: float) -> tuple[float, float]:
    """Return the smallest and the largest share that are not out of control."""
    from scipy.stats import binom

    n = _whole(size)
    return int(binom.ppf(_TAIL, n, centre)) / n, int(binom.isf(_TAIL, n, centre)) / n


def _exact_z(group: Subgroup, centre: float, size: float) -> float:
    from scipy.stats import binom, norm

    n = _whole(size)
    x = round(group.x * n / group.n)
    here = float(binom.pmf(x, n, centre)) / 2
    below = float(binom.cdf(x - 1, n, centre)) + here
    above = float(binom.sf(x, n, centre)) + here
    tiny = 1e-300  # beyond what a double holds the score is cut, not infinite
    return float(norm.ppf(max(below, tiny)) if below < above else norm.isf(max(above, tiny)))


def _whole(size: float) -> int:
    return max(1, round(size))


def _rules_phrase(rules: Sequence[int]) -> str:
    return f"{'rule' if len(rules) == 1 else 'rules'} {', '.join(map(str, rules))}"
