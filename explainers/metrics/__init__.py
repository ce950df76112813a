"""The metrics that judge explanations: against the truth, against the model, against a random model.

    from explainers.metrics.localisation import ebpg
    ebpg(explanation.maps, masks)                       # (F,) share of each map's energy on the defect

Everything is per row: one map, one class, one ground truth. How rows are averaged is the caller's business;
rows without a ground truth are NaN, so `nanmean` leaves them out.
"""
