"""The metrics that judge explanations: against the truth, against the model, against a random model.

    from explainers.metrics.localisation import ebpg
    ebpg(explanation.maps, masks)                       # (F,) share of each map's energy on the defect

Every metric is per row: one map, one class, one ground truth. The caller averages. Rows without a ground
truth are NaN, so `nanmean` leaves them out.
"""
