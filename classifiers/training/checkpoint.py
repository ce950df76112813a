"""Write and read checkpoints of a training: a kill loses one epoch at most."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from classifiers.files import whole_folder

STATE_FILE = "state.json"
WEIGHTS_FILE = "weights.safetensors"
OPTIMIZER_FILE = "optimizer.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The state after an epoch.

    Attributes:
        state: JSON content: the epoch, the best one so far, the history, the fingerprint of the training.
        weights: sets of tensors by name: "model", "average", "best".
        optimizer: the optimizer's state_dict.
    """

    state: dict[str, Any]
    weights: dict[str, dict[str, torch.Tensor]]
    optimizer: dict[str, Any]


def write_checkpoint(work: Path, epoch: int, checkpoint: Checkpoint) -> None:
    """Write the state after `epoch` into the work folder, then remove older ones."""
    tensors = {
        f"{kind}/{name}": tensor.detach().cpu().contiguous()
        for kind, state in checkpoint.weights.items()
        for name, tensor in state.items()
    }
    newest = work / f"epoch-{epoch:05d}"
    with whole_folder(newest) as unfinished:
        # Tensors of different sets never share memory: "average" and "best" are copies of the model's.
        safetensors.torch.save_file(tensors, unfinished / WEIGHTS_FILE)
        torch.save(checkpoint.optimizer, unfinished / OPTIMIZER_FILE)
        (unfinished / STATE_FILE).write_text(json.dumps(checkpoint.state), encoding="utf-8")
    # Older ones, and what a kill left unfinished.
    for other in work.glob("*epoch-*"):
        if other != newest:
            shutil.rmtree(other)


def read_checkpoint(work: Path) -> Checkpoint | None:
    """Return the latest checkpoint in the work folder, or None."""
    # Five digits: what a kill left unfinished has a longer name.
    folder = max(work.glob("epoch-?????"), default=None)
    if folder is None:
        return None
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in safetensors.torch.load_file(folder / WEIGHTS_FILE).items():
        kind, name = key.split("/", 1)
        weights.setdefault(kind, {})[name] = tensor
    # Our own file, but a pickle: it is read without the power to run code.
    optimizer = torch.load(folder / OPTIMIZER_FILE, weights_only=True, map_location="cpu")
    return Checkpoint(json.loads((folder / STATE_FILE).read_text(encoding="utf-8")), weights, optimizer)
