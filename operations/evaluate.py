"""Explainers times metrics times a data set: what is computed, and the files that hold it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from classifiers import Preprocessing
from configs.evaluation import EvaluatedModelSettings, EvaluationSettings, FolderData, SeverstalData, VocData
from configs.loading import ConfigError
from explainers.evaluation.coco import coco_samples
from explainers.evaluation.folder import Columns, folder_samples
from explainers.evaluation.grid import GridRow, save_grid
from explainers.evaluation.measures import MeasureSettings
from explainers.evaluation.models import EvaluatedModel, package_model, read_mapping, weights_model
from explainers.evaluation.plan import Method, Plan
from explainers.evaluation.running import Evaluation, fit_mask
from explainers.evaluation.samples import SampleSet, choose, draw, known_only
from explainers.evaluation.severstal import Cut, severstal_samples
from explainers.evaluation.summary import Summary, summarise
from explainers.evaluation.tables import write_tables
from explainers.evaluation.voc import voc_samples

Progress = Callable[[int, int], None]


def open_evaluation(settings: EvaluationSettings) -> Evaluation:
    """Read the data set, load the model, make the explainers.

    Raises:
        ConfigError, ExplainerError, PackageError: what cannot be used.
    """
    model = load_model(settings.model)
    dataset = known_only(load_samples(settings), model.indices)
    dataset = draw(dataset, settings.data.limit, settings.data.seed)
    plan = Plan(
        methods=tuple(Method(one.heading, one.method, one.options) for one in settings.explainers),
        measures=MeasureSettings(
            names=settings.metrics,
            tolerance=settings.tolerance,
            insertion_steps=settings.insertion_steps,
            batch_size=settings.batch_size,
            precision=settings.precision,
        ),
        reference=settings.compared_with,
        only_correct=settings.only_correct,
        precision=settings.precision,
        batch_size=settings.batch_size,
        examples=settings.examples,
    )
    return Evaluation(dataset, model, plan, settings.output)


def load_samples(settings: EvaluationSettings) -> SampleSet:
    """Read the data set that the settings name.

    Raises:
        ExplainerError: naming file and line.
    """
    data = settings.data
    by_name = isinstance(data, SeverstalData)  # the split lists patches by strip
    choice = choose(data.classes, data.subset, data.subset_column, by_name=by_name)
    if isinstance(data, FolderData):
        columns = Columns(data.image_column, data.label_column, data.mask_column, data.group_column)
        return folder_samples(
            data.path, columns=columns, where=data.where, threshold=data.threshold, choice=choice
        )
    if isinstance(data, SeverstalData):
        cut = Cut(data.patch, data.stride, data.min_area, data.every_class)
        return severstal_samples(
            data.table, data.images, cut=cut, class_names=data.class_names, choice=choice
        )
    if isinstance(data, VocData):
        return voc_samples(
            data.root,
            year=data.year,
            image_set=data.image_set,
            truth=data.truth,
            difficult=data.difficult,
            choice=choice,
        )
    return coco_samples(data.images, data.annotations, truth=data.truth, crowd=data.crowd, choice=choice)


def load_model(settings: EvaluatedModelSettings) -> EvaluatedModel:
    """Load the model that the settings name.

    Raises:
        ConfigError: preprocessing that cannot be. ExplainerError, PackageError: a model that cannot be used.
    """
    if settings.package is not None:
        return package_model(settings.package, settings.device)
    if settings.architecture is None or settings.weights is None:
        raise ConfigError("model: expected package, or architecture and weights")
    indices: dict[str, tuple[int, ...]]
    if settings.mapping is not None:
        indices = read_mapping(settings.mapping, settings.mapping_index, settings.mapping_class)
    else:
        indices = {name: (index,) for index, name in enumerate(settings.classes or ())}
    try:
        preprocessing = Preprocessing(
            settings.input_size, settings.mean, settings.std, settings.interpolation, settings.fit
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    return weights_model(
        settings.architecture,
        settings.weights,
        outputs=settings.outputs or len(indices),
        indices=indices,
        preprocessing=preprocessing,
        activation=settings.activation,
        model_args=settings.model_args,
        device=settings.device,
    )


def report(settings: EvaluationSettings, evaluation: Evaluation) -> Summary:
    """Put the outcomes together and write table.md, table.json, table.csv and maps.png."""
    labels = [one.heading for one in settings.explainers]
    summary = summarise(
        evaluation.outcomes(),
        labels,
        (*settings.metrics, "seconds", "masks"),
        reference=settings.compared_with,
        tolerance=settings.tolerance,
        seed=settings.data.seed,
    )
    write_tables(summary, _about(settings, evaluation), settings.output)
    _write_grid(evaluation, labels, settings.output / "maps.png")
    return summary


def _about(settings: EvaluationSettings, evaluation: Evaluation) -> dict[str, Any]:
    model, dataset = evaluation.model, evaluation.dataset
    where = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    facts = {
        "data": f"{dataset.name}: " + ", ".join(f"{n} {label}" for label, n in dataset.counts().items()),
        "model": f"{model.name}, {model.activation}, digest {model.digest[:12]}",
        "computed": f"{where}, {torch.get_num_threads()} CPU threads, masked passes in {settings.precision}, "
        f"torch {torch.__version__}",
    }
    facts |= {f"skipped, {reason}": str(count) for reason, count in dataset.skipped.items()}
    return {
        "title": settings.name,
        "facts": facts,
        "settings": settings.model_dump(mode="json"),
        "model_digest": model.digest,
        "skipped": dataset.skipped,
    }


def _write_grid(evaluation: Evaluation, labels: list[str], path: Path) -> None:
    statuses = {
        (outcome.image, outcome.label, outcome.explainer): outcome.status for outcome in evaluation.outcomes()
    }
    rows = []
    for sample in evaluation.examples():
        pixels, truth = sample.read()
        maps = []
        for label in labels:
            found = evaluation.example(sample, label)
            status = statuses.get((sample.image, sample.label, label), "no map")
            maps.append(status if found is None else found)
        preprocessing = evaluation.model.preprocessing
        rows.append(
            GridRow(
                f"{sample.label}: {sample.image}",
                preprocessing.resize(pixels),
                fit_mask(preprocessing, truth),
                tuple(maps),
            )
        )
    if rows:
        save_grid(rows, labels, path)
