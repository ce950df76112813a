"""How far a map may be trusted, in a word and a sentence."""

from dataclasses import dataclass

from reports.content.finding import Explanation
from reports.wording import clip, percent, score

# Drop (percent) up to which the highlighted area is called good or fair evidence: rules of thumb, and printed
# as such; the mean drop of SISE on its authors' benchmarks is 31 to 38 %.
GOOD_DROP = 25.0
FAIR_DROP = 60.0
# Below this score the model itself does not believe in a defect, and no map is called supported: taking the
# rest of the picture away takes away what speaks against the defect.
UNDECIDED = 0.5


@dataclass(frozen=True)
class Trust:
    """How far a map may be trusted; `level` is good, fair, poor or none."""

    level: str
    word: str
    sentence: str


def judge_map(
    explanation: Explanation, class_score: float, defect_score: float, gap: str | None = None
) -> Trust:
    """Return what the masked score means for the map; all scores are in [0, 1].

    `gap` says why a map that there should be cannot be had.
    """
    if gap or not explanation.has_map:
        reason = gap or (explanation.status if explanation.status != "ok" else "the map is not in the record")
        return Trust(
            "none",
            "No map",
            f"There is no attribution map ({clip(reason, 200)}). The score stands on its own; judge the "
            "picture itself.",
        )
    if explanation.masked_score is None:
        return Trust(
            "none", "Not measured", "The masked score was not measured: take the map as a hint only."
        )
    partly = "" if explanation.status == "ok" else f" The map is {clip(explanation.status, 200)}."
    kept = (
        f"With only the {percent(explanation.kept_share)} of pixels that the map ranks highest left (the"
        " rest in the picture's mean colour)"
    )
    change = f"the score of this class goes from {score(class_score)} to {score(explanation.masked_score)}"
    if max(class_score, defect_score) < UNDECIDED:
        return Trust(
            "fair",
            "A place to look",
            f"The model gives this class {score(class_score)}, less than even odds: the map shows where it"
            f" found what little speaks for it, not where a defect is. {kept}, {change}.{partly}",
        )
    if explanation.increase:
        return Trust(
            "good",
            "Well supported",
            f"{kept}, {change}: it rises. The model needs nothing beyond the highlighted area.{partly}",
        )
    drop = explanation.drop
    if drop is None:
        drop = max(0.0, class_score - explanation.masked_score) / class_score * 100 if class_score else 0.0
    measured = f"{kept}, {change}, a drop of {drop:.1f} %.{partly}"
    if drop <= GOOD_DROP:
        return Trust(
            "good",
            "Well supported",
            f"{measured} Most of what drives the verdict lies in the highlighted area.",
        )
    if drop <= FAIR_DROP:
        return Trust(
            "fair",
            "Partly supported",
            f"{measured} The highlighted area carries part of the verdict: look at its surroundings as well.",
        )
    return Trust(
        "poor",
        "Weakly supported",
        f"{measured} Much of what drives the verdict lies outside the highlighted area: judge the whole "
        "picture, and do not read the outline as the defect.",
    )
