"""Judging explainers on a data set: samples, models, the run, the paper's table.

    dataset = draw(known_only(voc_samples(Path("data")), model.indices), limit=500)
    evaluation = Evaluation(dataset, model, plan, Path("out"))
    evaluation.run()
    summary = summarise(evaluation.outcomes(), labels, metrics)

`kensa evaluate --config FILE` (flows/evaluating.py) is the same from a settings file.
"""

from explainers.evaluation.coco import coco_samples
from explainers.evaluation.folder import Columns, folder_samples
from explainers.evaluation.grid import GridRow, maps_grid, save_grid
from explainers.evaluation.measures import MEASURES, MeasureSettings, measure
from explainers.evaluation.models import EvaluatedModel, package_model, read_mapping, weights_model
from explainers.evaluation.outcomes import FAILED, Outcome
from explainers.evaluation.plan import Method, Plan
from explainers.evaluation.running import Evaluation, fit_mask
from explainers.evaluation.samples import Choice, Sample, SampleSet, choose, draw, known_only
from explainers.evaluation.severstal import Cut, severstal_samples, write_patches
from explainers.evaluation.summary import Cell, Summary, summarise
from explainers.evaluation.tables import as_markdown, heading, row_texts, write_tables
from explainers.evaluation.voc import voc_samples

__all__ = [
    "FAILED",
    "MEASURES",
    "Cell",
    "Choice",
    "Columns",
    "Cut",
    "EvaluatedModel",
    "Evaluation",
    "GridRow",
    "MeasureSettings",
    "Method",
    "Outcome",
    "Plan",
    "Sample",
    "SampleSet",
    "Summary",
    "as_markdown",
    "choose",
    "coco_samples",
    "draw",
    "fit_mask",
    "folder_samples",
    "heading",
    "known_only",
    "maps_grid",
    "measure",
    "package_model",
    "read_mapping",
    "row_texts",
    "save_grid",
    "severstal_samples",
    "summarise",
    "voc_samples",
    "weights_model",
    "write_patches",
    "write_tables",
]
