"""Explain one picture with one model package, and draw it."""

from math import inf
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from classifiers import Decision, ModelPackage, Predictor, load_package
from classifiers.tiles import scored_tiles, tiled_picture
from configs.loading import ConfigError
from configs.schema import ExplainerSettings
from db.inspection.outcomes import ImageOutcome
from explainers import Explainer, ExplainerError
from explainers.drawing import Pixels, figure
from explainers.tile_maps import place_text, tiles_figure
from operations.inspection.evidence import Memory, explain_findings, explainer_for, judged_maps
from operations.inspection.map_files import decode_map
from operations.inspection.pictures import Picture
from sources.decoding import decode
from sources.errors import Unreadable

Probabilities = npt.NDArray[np.float32]


def explain_picture(
    image: Path, model: Path, out_file: Path, class_name: str | None, method: str, device: str
) -> str:
    """Write a PNG with the picture, its map, block maps and outline, and return a sentence that sums it up.

    Where the package tiles pictures, the PNG shows the whole picture with the maps of the tiles that were
    explained, and each of these tiles.

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
    tiled = package.tiling is not None
    try:
        data = image.read_bytes()
        decoded = decode(data) if tiled else package.preprocessing.decode(data)
    except (OSError, Unreadable) as error:
        raise Unreadable(f"{image}: {error}") from error
    explainer = explainer_for(predictor, ExplainerSettings(method=method))
    if tiled:
        return _explain_tiles(explainer, predictor, decoded.pixels, out_file, class_name)
    preprocessing = package.preprocessing
    tensor = preprocessing.transform(decoded.pixels, (decoded.height, decoded.width))[None]
    probabilities = predictor.predict(tensor).probabilities[0]
    index = _class_index(package, class_name, probabilities)
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
    _write_picture(out_file, figure(decode(data).pixels, fused, blocks, caption=f"{name} {score:.3f}"))
    change = _change_words(float(masked[0]), float(drop[0]), bool(increase[0]))
    return (
        f"{name} {score:.3f}: with the map's top 15 % of the pixels alone the score {change};"
        f" drawn in {out_file}"
    )


def _explain_tiles(
    explainer: Explainer, predictor: Predictor, pixels: Pixels, out_file: Path, class_name: str | None
) -> str:
    """Do the same of a picture that the network sees in tiles."""
    package = predictor.package
    tiled = tiled_picture(package, pixels)
    (scores,) = scored_tiles(predictor, [tiled])
    index = _class_index(package, class_name, scores.probabilities[scores.deciding])
    name = package.classes[index]
    height, width = pixels.shape[:2]
    # Without a calibration there is no threshold that a tile could reach: the strongest one is explained.
    threshold = inf if package.thresholds is None else package.thresholds.review
    picture = Picture(
        ImageOutcome(uri="", version="", size=0, height=height, width=width, review_threshold=threshold),
        tiled=tiled,
        tile_scores=scores,
        decision=Decision("review", float(scores.scores.max()), ((name, index, 0.0),)),
    )
    memory = Memory()
    ((finding,),) = explain_findings(explainer, predictor, memory, [picture])
    if (made := finding.explanation) is None or not made.tiles:
        raise ValueError(f"{name}: a finding on a tiled picture has the tiles that were explained")
    tiles = made.tiles
    maps = [(tile.rectangle, decode_map(memory.maps[tile.map.digest])) for tile in tiles if tile.map]
    score = tiles[0].score
    if made.status.startswith("failed: ") and not maps:
        raise ExplainerError(made.status.removeprefix("failed: "))
    if not maps:
        return f"{name} {score:.3f}: {made.status}; nothing to draw"
    sheet = tiles_figure(pixels, maps, caption=f"{name} {score:.3f}", box=made.box)
    _write_picture(out_file, sheet)
    left_out = made.tiles_left_out or 0
    more = f", {left_out} more at the review threshold" if left_out else ""
    places = "; ".join(f"{place_text(tile.rectangle)} ({tile.score:.3f})" for tile in tiles)
    told = ""
    if made.masked_score is not None and made.drop is not None:
        change = _change_words(made.masked_score, made.drop, bool(made.increase))
        told = f"with the top 15 % of the first tile's pixels alone the score {change}; "
    return (
        f"{name} {score:.3f}: {len(tiles)} of {len(tiled.grid)} tiles explained{more}: {places}; {told}"
        f"drawn in {out_file}"
    )


def _class_index(package: ModelPackage, class_name: str | None, probabilities: Probabilities) -> int:
    if class_name is None:
        return int(np.argmax(probabilities))
    if class_name not in package.classes:
        raise ConfigError(f"--class {class_name}: expected one of {', '.join(package.classes)}")
    return package.classes.index(class_name)


def _write_picture(out_file: Path, pixels: Pixels) -> None:
    out_file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(out_file, format="PNG")


def _change_words(masked: float, drop: float, increase: bool) -> str:
    change = "rises" if increase else f"drops by {drop:.0f} %"
    return f"{change} (to {masked:.3f})"
