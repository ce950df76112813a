"""How well a model does: calibration, metrics with intervals, reference statistics."""
