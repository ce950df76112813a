"""What an evaluation does: which explainers, which metrics, under which settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from explainers.errors import ExplainerError
from explainers.evaluation.measures import MeasureSettings
from explainers.scoring import Precision

SAMPLE = ""  # in place of an explainer: the outcome of the sample as a whole


@dataclass(frozen=True)
class Method:
    """One column of the table.

    Attributes:
        label: its heading.
        name: one of `list_explainers()`.
        options: of the explainer, beside those that the evaluation gives to every one that knows them.
    """

    label: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is evaluated, and how.

    Attributes:
        methods: the columns.
        measures: the metrics and their settings.
        reference: label of the method whose maps the others are correlated with; None for none.
        only_correct: leave samples out whose class is not the model's most probable one.
        precision: of masked passes, for the explainers that know it.
        batch_size: masked pictures in one pass, for the explainers that know it; it changes nothing but time.
        examples: number of samples whose maps are kept to be looked at.
    """

    methods: tuple[Method, ...]
    measures: MeasureSettings = field(default_factory=MeasureSettings)
    reference: str | None = None
    only_correct: bool = False
    precision: Precision = "float32"
    batch_size: int = 16
    examples: int = 8

    def __post_init__(self) -> None:
        labels = [method.label for method in self.methods]
        if not labels or len(set(labels)) != len(labels) or SAMPLE in labels:
            raise ExplainerError(f"explainers need different labels, got {', '.join(labels) or 'none'}")
        if self.reference is not None and self.reference not in labels:
            raise ExplainerError(f"reference {self.reference!r} is not one of {', '.join(labels)}")
        if "rank_correlation" in self.measures.names and self.reference is None:
            raise ExplainerError("rank_correlation needs a reference: one of the explainers, such as sise")
