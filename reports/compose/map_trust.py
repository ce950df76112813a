"""What was measured of a map, in a word and a sentence: no more is claimed."""

from dataclasses import dataclass

from reports.content.finding import Explanation
from reports.wording import clip, percent, score

# Drop (percent) up to which the score is called mostly or partly kept: rules of thumb, and printed as such;
# the mean drop of SISE on its authors' benchmarks is 31 to 38 %.
GOOD_DROP = 25.0
FAIR_DROP = 60.0
# Below this score the model itself does not believe in a defect, and what is left of the score says nothing
# of the map: taking the rest of the picture away takes away what speaks against the defect.
UNDECIDED = 0.5


@dataclass(frozen=True)
class Trust:
    """What is left of the score on the map's pixels alone; `level` is good, fair, poor or none."""

    level: str
    word: str
    sentence: str


def judge_map(
    explanation: Explanation,
    class_score: float,
    defect_score: float,
    gap: str | None = None,
    kept: float | None = None,
) -> Trust:
    """Return what the masked score says; all scores are in [0, 1].

    It says whether the map's pixels suffice for the model's score, not whether they show the defect.

    Args:
        explanation: what is known of the map.
        class_score: the flagged class's.
        defect_score: the picture's.
        gap: why a map that there should be cannot be had.
        kept: share of the picture that was left for the masked score, in [0, 1], where the map is at hand.
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
    change = f"the score of this class goes from {score(class_score)} to {score(explanation.masked_score)}"
    left = f"{_kept_words(explanation, kept)}, {change}"
    if max(class_score, defect_score) < UNDECIDED:
        return Trust(
            "fair",
            "A place to look",
            f"The model gives this class {score(class_score)}, less than even odds: the map shows where it"
            f" found what little speaks for it, not where a defect is. {left}.{partly}",
        )
    if explanation.increase:
        return Trust("good", "Score mostly kept", f"{left}: it rises.{partly} {_ENOUGH}")
    drop = explanation.drop
    if drop is None:
        drop = max(0.0, class_score - explanation.masked_score) / class_score * 100 if class_score else 0.0
    measured = f"{left}, a drop of {drop:.1f} %.{partly}"
    if drop <= GOOD_DROP:
        return Trust("good", "Score mostly kept", f"{measured} {_ENOUGH}")
    if drop <= FAIR_DROP:
        return Trust(
            "fair",
            "Score partly kept",
            f"{measured} The model needs the surroundings of these pixels as well: look there too.",
        )
    return Trust(
        "poor",
        "Score mostly lost",
        f"{measured} The model needs what lies outside these pixels: judge the whole picture, and do not read"
        " the outline as the defect.",
    )


_ENOUGH = (
    "The model needs little else for this score. Whether these pixels show the defect was not measured: "
    "judge that on the picture."
)


def _kept_words(explanation: Explanation, kept: float | None) -> str:
    """Return which pixels the masked score was measured on; of a tiled picture, those of a tile."""
    seen = "tile" if explanation.tiles else "picture"
    most = percent(explanation.kept_share)
    # Pixels at 0 are never kept: where fewer than the share are above 0, these are all.
    if kept is not None and kept < explanation.kept_share * 0.99:
        which = f"the pixels left where the map is above 0, {percent(kept)} of the {seen}"
    else:
        which = f"the top {most} of the map's pixels left"
    first = "In the strongest tile, with" if explanation.tiles else "With"
    return f"{first} only {which} (the rest in the {seen}'s mean colour, the edge soft)"
