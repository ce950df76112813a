"""Explain one picture with one model package, and draw it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from classifiers import Predictor, load_package
from configs.loading import ConfigError
from configs.schema import ExplainerSettings
from explainers.drawing import figure
from operations.inspection.evidence import explainer_for, judged_maps
from sources.decoding import decode
from sources.errors import Unreadable


def explain_picture(
    image: Path, model: Path, out_file: Path, class_name: str | None, method: str, device: str
) -> str:
    """Write a PNG with the picture, its map, block maps and outline, and return a sentence that sums it up.

    Args:
        image: the picture.
        model: the model package.
        out_file: the PNG to write.
        class_name: the class to explain; the most probable one when None.
        method: a name of `list_explainers()`.
        device: "auto" or a torch device.

    Raises:
        ConfigError: no such class. Unreadable, PackageError, ExplainerError: what cannot be used.
    """
    package = load_package(model)
    predictor = Predictor(package, device=device)
    try:
        data = image.read_bytes()
        decoded = package.preprocessing.decode(data)
    except (OSError, Unreadable) as error:
        raise Unreadable(f"{image}: {error}") from error
    preprocessing = package.preprocessing
    tensor = preprocessing.transform(decoded.pixels, (decoded.height, decoded.width))[None]
    probabilities = predictor.predict(tensor).probabilities[0]
    if class_name is None:
        index = int(np.argmax(probabilities))
    elif class_name in package.classes:
        index = package.classes.index(class_name)
    else:
        raise ConfigError(f"--class {class_name}: expected one of {', '.join(package.classes)}")
    explainer = explainer_for(predictor, ExplainerSettings(method=method))
    images, targets = tensor.to(predictor.device), torch.tensor([index])
    explanation = explainer(images, targets)
    name, score = package.classes[index], float(probabilities[index])
    if not explanation.defined[0]:
        return f"{name} {score:.3f}: {explanation.status[0]}; nothing to draw"
    masked, drop, increase = judged_maps(predictor, images, targets, explanation.maps)
    top, left, bottom, right = preprocessing.content_box(decoded.height, decoded.width)
    fused = explanation.maps[0, top:bottom, left:right].cpu().numpy()
    blocks = [
        (layer, maps[0, top:bottom, left:right].cpu().numpy())
        for layer, maps in explanation.block_maps.items()
    ]
    out_file.parent.mkdir(parents=True, exist_ok=True)
    sheet = figure(decode(data).pixels, fused, blocks, caption=f"{name} {score:.3f}")
    Image.fromarray(sheet).save(out_file, format="PNG")
    change = "rises" if bool(increase[0]) else f"drops by {float(drop[0]):.0f} %"
    return (
        f"{name} {score:.3f}: with the map's top 15 % of the pixels alone the score {change}"
        f" (to {float(masked[0]):.3f}); drawn in {out_file}"
    )
