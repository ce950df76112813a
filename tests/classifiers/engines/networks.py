"""Networks for the tests of engines."""

from __future__ import annotations

from pathlib import Path

import torch

from classifiers.package.network import create_network
from classifiers.package.package import ModelPackage, save_package


def other_network(package: ModelPackage, architecture: str, folder: Path) -> ModelPackage:
    """Save a package like another one, of a network with other weights."""
    torch.manual_seed(4)
    network = create_network(architecture, {}, len(package.classes)).eval()
    with torch.no_grad():
        network.get_classifier().weight.mul_(30)
    return save_package(
        folder,
        network,
        architecture=architecture,
        model_args={},
        classes=package.classes,
        good_class=package.good_class,
        task=package.task,
        preprocessing=package.preprocessing,
        temperature=1.5,
    )
