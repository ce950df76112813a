"""The reference: PyTorch itself, and on a GPU its CUDA graphs."""

from __future__ import annotations

import copy
import logging
from collections import Counter

import torch

from classifiers.engines.engine import PRECISIONS

_log = logging.getLogger("kensa")

# Each graph keeps its input and output. A run has one size of batch, and its explainer another.
_MOST_GRAPHS = 4


class TorchEngine:
    """Computes with a torch network, eagerly; on CUDA it plays back recorded passes where sizes repeat.

    On a GPU small networks wait for Python, which starts kernels one by one. A CUDA graph starts all of them
    at once: on an H200 it was faster at every batch size (docs/results.md). A graph has one input size: it is
    recorded when a size comes for the second time; the size that came least often makes place. What comes
    once, such as a run's last batch, is computed eagerly.

    Args:
        model: the network in eval mode, its logits divided by the temperature; float32, on its device.
        precision: in which to compute.
        classes: outputs of the network.
    """

    name = "torch"

    def __init__(self, model: torch.nn.Module, precision: str, classes: int) -> None:
        self.precision = precision
        self.version = torch.__version__
        self._classes = classes
        self._dtype = PRECISIONS[precision]
        self._model = model if precision == "float32" else copy.deepcopy(model).to(self._dtype)
        self._recording = next(model.parameters()).is_cuda
        self._uses: Counter[int] = Counter()
        self._graphs: dict[int, _Graph] = {}

    @torch.inference_mode()
    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) float32 on the batch's device."""
        if not len(batch):  # which not every network takes
            return torch.empty(0, self._classes, device=batch.device)
        batch = batch.to(self._dtype, memory_format=torch.channels_last)
        graph = self._graph(batch) if self._recording else None
        logits: torch.Tensor = self._model(batch) if graph is None else graph(batch)
        return logits.float()

    def _graph(self, batch: torch.Tensor) -> _Graph | None:
        """Return the recorded pass for a batch of this size, if it is worth one."""
        size = len(batch)
        self._uses[size] += 1
        if size not in self._graphs and self._has_place(size):
            try:
                self._graphs[size] = _Graph(self._model, batch)
            except RuntimeError as error:
                # Not every network can be recorded: one that looks at its own values cannot, for example.
                _log.warning("CUDA graphs are not used, as the network cannot be recorded: %s", error)
                self._recording = False
        return self._graphs.get(size)

    def _has_place(self, size: int) -> bool:
        """Return whether a size is worth a graph; one of less use makes place for it."""
        if self._uses[size] < 2:
            return False
        if len(self._graphs) == _MOST_GRAPHS:
            least = min(self._graphs, key=self._uses.__getitem__)
            if self._uses[least] >= self._uses[size]:
                return False
            del self._graphs[least]
        return True


class _Graph:
    """A forward pass over one size of batch, recorded once."""

    def __init__(self, model: torch.nn.Module, batch: torch.Tensor) -> None:
        self._input = batch.clone()
        aside = torch.cuda.Stream(batch.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(aside):
            for _ in range(3):  # cuDNN chooses its algorithms before anything is recorded
                model(self._input)
        torch.cuda.current_stream(batch.device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(batch.device), torch.cuda.graph(self._graph):
            self._logits: torch.Tensor = model(self._input)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self._input.copy_(batch)
        self._graph.replay()
        return self._logits.clone()  # the next pass writes over them
