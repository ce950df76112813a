"""The metrics that judge explanations: against the truth, against the model, against a random model.

    from explainers.metrics import ebpg, insertion_deletion
    ebpg(explanation.maps, masks)                       # (F,) share of each map's energy on the defect
    insertion_deletion(model, images[explanation.images], explanation.targets, explanation.maps)

Everything is per row: one map, one class, one ground truth. How rows are averaged is the caller's business;
rows without a ground truth are NaN, so `nanmean` leaves them out.
"""

from explainers.metrics.faithfulness import insertion_deletion
from explainers.metrics.localisation import bbox, ebpg, miou, pointing_game
from explainers.metrics.sanity import Stage, cascading_randomisation, rank_correlation
from explainers.trust import drop_increase

__all__ = [
    "Stage",
    "bbox",
    "cascading_randomisation",
    "drop_increase",
    "ebpg",
    "insertion_deletion",
    "miou",
    "pointing_game",
    "rank_correlation",
]
