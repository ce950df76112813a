"""The evaluation itself: every sample, every explainer, every metric, each outcome kept as it comes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classifiers import Preprocessing
from classifiers.package.manifest import canonical
from explainers import registry
from explainers.errors import ExplainerError
from explainers.evaluation.measures import measure
from explainers.evaluation.models import EvaluatedModel, explained_index
from explainers.evaluation.outcomes import FAILED, LEFT_OUT, Outcome, Outcomes
from explainers.evaluation.plan import SAMPLE, Method, Plan
from explainers.evaluation.samples import Mask, Sample, SampleSet
from explainers.explainer import Explainer
from explainers.explanation import OK, UNDEFINED


@dataclass(frozen=True)
class Prepared:
    """A sample as the model sees it: (1, 3, H, W) picture, (1, H, W) bool truth, (1,) target."""

    images: Tensor
    masks: Tensor
    targets: Tensor


class Evaluation:
    """One evaluation in one folder; `run` does what is not done yet.

    Args:
        dataset: the samples, in the order in which they are to be done.
        model: the explained model; it knows every class of the samples.
        plan: what is evaluated.
        folder: where `results.jsonl` and `maps/` are, or will be.

    Raises:
        ExplainerError: an explainer that cannot be made, or a results file that cannot be read.
    """

    def __init__(self, dataset: SampleSet, model: EvaluatedModel, plan: Plan, folder: Path) -> None:
        self.dataset = dataset
        self.model = model
        self.plan = plan
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "maps").mkdir(exist_ok=True)
        self._outcomes = Outcomes(folder / "results.jsonl")
        # The reference first: the others are compared with its map.
        self._methods = sorted(plan.methods, key=lambda method: method.label != plan.reference)
        self._explainers = {method.label: self._explainer(method) for method in self._methods}
        self._digests = self._settings_digests()

    def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Explain and measure what has no outcome yet; failures are tried again.

        Args:
            progress: called with (done, all) pairs of sample and explainer.
        """
        total = len(self.dataset.samples) * len(self._methods)
        examples = 0
        for number, sample in enumerate(self.dataset.samples):
            if progress is not None:
                progress(number * len(self._methods), total)
            examples += self._finish_sample(sample, keep_all=examples < self.plan.examples)
        if progress is not None:
            progress(total, total)

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return the outcomes under these very settings, sample by sample, in the order of the plan."""
        labels = [SAMPLE, *(method.label for method in self.plan.methods)]
        found = (self._find_outcome(sample, label) for sample in self.dataset.samples for label in labels)
        return tuple(
            outcome
            for outcome in found
            if outcome is not None and (outcome.explainer != SAMPLE or outcome.status != OK)
        )

    def example(self, sample: Sample, label: str) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """Return the kept map (H, W) float32 of a sample, or None where none was kept."""
        path = self._map_path(sample, label)
        return np.load(path).astype(np.float32) if path.is_file() else None

    def examples(self) -> tuple[Sample, ...]:
        """Return the samples whose maps are kept to be looked at."""
        evaluated = (sample for sample in self.dataset.samples if self._left_out(sample) is None)
        return tuple(sample for _, sample in zip(range(self.plan.examples), evaluated, strict=False))

    def _finish_sample(self, sample: Sample, *, keep_all: bool) -> bool:
        """Do what is left to do of one sample; return whether it is evaluated at all."""
        left_out = self._left_out(sample)
        if left_out is not None and not left_out.status.startswith(FAILED):
            return False
        pending = [
            method.label for method in self._methods if not self._is_done(sample, method.label, keep_all)
        ]
        if not pending:
            return True
        prepared = self._prepare(sample)
        if isinstance(prepared, str):
            self._add_outcome(sample, SAMPLE, prepared)
            return False
        if left_out is not None:
            self._add_outcome(sample, SAMPLE, OK)  # it could not be read at an earlier start, and now it can
        for label in pending:
            self._explain(sample, label, prepared, keep=keep_all or label == self.plan.reference)
        return True

    def _is_done(self, sample: Sample, label: str, keep_all: bool) -> bool:
        outcome = self._find_outcome(sample, label)
        if outcome is None or outcome.status.startswith(FAILED):
            return False
        if outcome.status.startswith(UNDEFINED):
            return True
        compared = label == self.plan.reference and "rank_correlation" in self.plan.measures.names
        kept = self._map_path(sample, label).is_file() or not (keep_all or compared)
        return kept and set(self.plan.measures.names) <= set(outcome.values)

    def _prepare(self, sample: Sample) -> Prepared | str:
        """Return the sample as the model sees it, or the status that says why it is not evaluated."""
        try:
            pixels, mask = sample.read()
        except ExplainerError as error:
            return f"{FAILED}: {error}"
        truth = fit_mask(self.model.preprocessing, mask)
        if not truth.any():
            return f"{LEFT_OUT}: the class has no pixel left at the network's input size"
        images = self.model.preprocessing.transform(pixels)[None].to(self.model.device)
        with torch.inference_mode():
            logits = self.model.network(images)[0].float().cpu()
        if not bool(torch.isfinite(logits).all()):
            return f"{FAILED}: the model gives NaN or infinity for this picture"
        target, correct = explained_index(self.model, logits, sample.label)
        if self.plan.only_correct and not correct:
            return f"{LEFT_OUT}: the class is not the model's most probable one"
        return Prepared(images, torch.from_numpy(truth)[None].to(self.model.device), torch.tensor([target]))

    def _explain(self, sample: Sample, label: str, prepared: Prepared, *, keep: bool) -> None:
        explainer = self._explainers[label]
        target = int(prepared.targets[0])
        try:
            self._wait_for_device()
            start = time.perf_counter()
            explanation = explainer(prepared.images, prepared.targets)
            self._wait_for_device()
            seconds = time.perf_counter() - start
            status, score = explanation.status[0], float(explanation.scores[0])
            if not explanation.defined[0]:
                self._add_outcome(sample, label, status, target, score)
                return
            reference = explanation.maps if label == self.plan.reference else self._reference_map(sample)
            values = measure(
                self.plan.measures,
                self.model,
                prepared.images,
                prepared.targets,
                explanation.maps,
                prepared.masks,
                reference,
            )
        # What an explainer of another library raises cannot be known; a bug shows as a failure of every row.
        except Exception as error:  # noqa: BLE001
            self._add_outcome(sample, label, f"{FAILED}: {type(error).__name__}: {error}", target)
            return
        values |= {"seconds": seconds, "masks": float(sum(int(one[0]) for one in explanation.masks.values()))}
        previous = self._find_outcome(sample, label)
        if previous is not None:  # measured before by other metrics, under the same settings
            values = previous.values | values
        if keep:
            self._keep_map(self._map_path(sample, label), explanation.maps[0])
        self._add_outcome(sample, label, status, target, score, values)

    def _reference_map(self, sample: Sample) -> Tensor | None:
        found = None if self.plan.reference is None else self.example(sample, self.plan.reference)
        return None if found is None else torch.from_numpy(found)[None].to(self.model.device)

    def _keep_map(self, path: Path, values: Tensor) -> None:
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.save(file, values.cpu().numpy().astype(np.float16))
        partial.replace(path)

    def _map_path(self, sample: Sample, label: str) -> Path:
        key = canonical([sample.image, sample.label, self._digests[label]])
        return self.folder / "maps" / f"{hashlib.sha256(key).hexdigest()[:32]}.npy"

    def _add_outcome(
        self,
        sample: Sample,
        label: str,
        status: str,
        target: int | None = None,
        score: float | None = None,
        values: dict[str, float | None] | None = None,
    ) -> None:
        settings = self._digests[label]
        self._outcomes.add(
            Outcome(
                sample.image, sample.label, sample.group, label, settings, status, target, score, values or {}
            )
        )

    def _find_outcome(self, sample: Sample, label: str) -> Outcome | None:
        return self._outcomes.find((sample.image, sample.label, label, self._digests[label]))

    def _left_out(self, sample: Sample) -> Outcome | None:
        """Return the outcome that says why a sample is not evaluated, or None where it is."""
        found = self._find_outcome(sample, SAMPLE)
        return None if found is None or found.status == OK else found

    def _wait_for_device(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)

    def _explainer(self, method: Method) -> Explainer:
        common = {
            "activation": self.model.activation,
            "mean": self.model.preprocessing.mean,
            "std": self.model.preprocessing.std,
            "precision": self.plan.precision,
            "batch_size": self.plan.batch_size,
        }
        known = registry.explainer_options(method.name)
        options = {name: value for name, value in common.items() if name in known} | method.options
        return registry.create_explainer(method.name, self.model.network, **options)

    def _settings_digests(self) -> dict[str, str]:
        """Return, per method and for the sample as a whole, the digest of all that decides an outcome."""
        measures = self.plan.measures
        sample = {
            "model": self.model.digest,
            "truth": self.dataset.truth,
            "only_correct": self.plan.only_correct,
        }
        digests = {SAMPLE: _digest(sample)}
        compared = "rank_correlation" in measures.names
        for method in self._methods:  # the reference is the first
            explainer = self._explainers[method.label]
            content = {
                "model": self.model.digest,
                "truth": self.dataset.truth,
                "method": explainer.method,
                "parameters": {
                    name: value for name, value in explainer.parameters.items() if name != "batch_size"
                },
                "tolerance": measures.tolerance,
                "insertion_steps": measures.insertion_steps,
                "precision": measures.precision,
                "reference": digests.get(str(self.plan.reference)) if compared else None,
            }
            digests[method.label] = _digest(content)
        return digests


def fit_mask(preprocessing: Preprocessing, mask: Mask) -> Mask:
    """Return a mask (h, w) bool brought to the network's input (H, W) as its picture is, by nearest pixel."""
    top, left, bottom, right = preprocessing.content_box(*mask.shape)
    resized = Image.fromarray(mask.astype(np.uint8)).resize(
        (right - left, bottom - top), Image.Resampling.NEAREST
    )
    fitted = np.zeros(preprocessing.input_size, dtype=bool)
    fitted[top:bottom, left:right] = np.asarray(resized, dtype=bool)
    return fitted


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical(content)).hexdigest()
