"""What the outline of a map holds: how much of the picture, in how many pieces, and a frame for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from explainers.drawing import top_mask
from explainers.tile_maps import composed_outline, merged_boxes
from reports.content.finding import Box, Explanation, FindingPage, Map
from reports.wording import clip, grouped, percent

_MOST = 6  # frames
_SMALLEST = 0.01  # of the outlined pixels: a smaller piece has no frame

Frame = tuple[
    int, int, int, int
]  # left, top, right and bottom in pixels of the picture, the last two exclusive


@dataclass(frozen=True)
class Region:
    """The outlined part of a picture.

    Attributes:
        share: of the picture's pixels that are outlined, in [0, 1].
        everything: whether these are all pixels where the map is above 0.
        frames: around its pieces; first that with the map's peak, then the others by size.
        pieces: how many pieces there are, framed or not.
        unframed: share of the outlined pixels that lie in pieces without a frame.
        peak: x and y of the map's peak, in pixels of the picture.
        width, height: of the picture, in pixels.
    """

    share: float
    everything: bool
    frames: tuple[Frame, ...]
    pieces: int
    unframed: float
    peak: tuple[float, float]
    width: int
    height: int

    @property
    def percent_frames(self) -> tuple[tuple[float, float, float, float], ...]:
        """Left, top, width and height of each frame, in percent of the picture."""
        across, down = 100 / self.width, 100 / self.height
        return tuple(
            (left * across, top * down, (right - left) * across, (bottom - top) * down)
            for left, top, right, bottom in self.frames
        )


def outlined_region(values: Map, explanation: Explanation, width: int, height: int) -> Region:
    """Return what the outline of a map (h, w) over a picture of this size (pixels) holds.

    The frame of the piece with the peak is the recorded one, where there is one.
    """
    region = top_mask(values, explanation.outline_share)
    labels, pieces = ndimage.label(region)
    down, across = height / values.shape[0], width / values.shape[1]
    row, column = np.unravel_index(int(np.argmax(values)), values.shape)
    sizes = np.bincount(labels.ravel(), minlength=pieces + 1)[1:]
    peak = int(labels[row, column]) - 1  # -1 where nothing is outlined
    order = sorted(range(pieces), key=lambda i: (i != peak, -sizes[i], i))
    shown = [i for i in order if i == peak or sizes[i] >= _SMALLEST * sizes.sum()][:_MOST]
    places = ndimage.find_objects(labels)
    frames = [
        (
            int(columns.start * across),
            int(rows.start * down),
            min(width, int(np.ceil(columns.stop * across))),
            min(height, int(np.ceil(rows.stop * down))),
        )
        for rows, columns in (places[i] for i in shown)
    ]
    recorded = None if explanation.box is None else _inside(explanation.box, width, height)
    if recorded is not None and frames:
        frames[0] = recorded
    return Region(
        share=float(region.mean()),
        everything=int((values > 0).sum()) == int(sizes.sum()),
        frames=tuple(frames),
        pieces=pieces,
        unframed=1.0 - float(sizes[shown].sum() / sizes.sum()) if pieces > len(shown) else 0.0,
        peak=((column + 0.5) * across, (row + 0.5) * down),
        width=width,
        height=height,
    )


def tiles_region(
    tiles: Sequence[tuple[Box, Map]], explanation: Explanation, width: int, height: int
) -> Region | None:
    """Return what the outlines of a tiled picture's maps hold; None where no tile has a box.

    A frame is around the piece with the peak of a tile's map; pieces that touch share one. Where the maps are
    gone, the frames are still on record.

    Args:
        tiles: rectangle and map of the tiles whose map is at hand.
        explanation: names the tiles, strongest first.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
    """
    boxes = [tile.box for tile in explanation.tiles if tile.box is not None]
    frames = [frame for box in merged_boxes(boxes) if (frame := _inside(box, width, height)) is not None]
    if not frames:
        return None
    left, top, right, bottom = boxes[0]
    peak = ((left + right) / 2, (top + bottom) / 2)
    for rectangle, values in tiles:
        if rectangle == explanation.tiles[0].rectangle:
            row, column = np.unravel_index(int(np.argmax(values)), values.shape)
            across = (rectangle[2] - rectangle[0]) / values.shape[1]
            down = (rectangle[3] - rectangle[1]) / values.shape[0]
            peak = (rectangle[0] + (column + 0.5) * across, rectangle[1] + (row + 0.5) * down)
    outlined = composed_outline(tiles, height, width, explanation.outline_share)
    return Region(
        share=float(outlined.mean()),
        everything=False,
        frames=tuple(frames),
        pieces=len(frames),
        unframed=0.0,
        peak=peak,
        width=width,
        height=height,
    )


def tiles_sentence(finding: FindingPage, region: Region | None, drawn: int) -> str:
    """Return how much of a tiled picture was explained, and what is outlined and framed.

    Args:
        finding: on the picture.
        region: what the outlines hold.
        drawn: how many tiles have a map at hand.
    """
    explanation = finding.explanation
    explained, more = len(explanation.tiles), explanation.tiles_left_out
    total = "in tiles" if finding.tile_count is None else f"in {grouped(finding.tile_count)} tiles"
    which = "The strongest one was" if explained == 1 else f"The strongest {explained} were"
    told = [f"The network saw this picture {total}. {which} explained for “{clip(finding.class_name, 60)}”"]
    if more:
        told.append(f"; {grouped(more)} more {'reaches' if more == 1 else 'reach'} the review threshold too")
    told.append(".")
    if drawn:
        told.append(
            " A dashed line is around what was explained: elsewhere there is no map. The stronger the colour,"
            " the higher the map, each tile’s by its own highest value. Outlined: its highest pixels."
        )
    if region is not None:
        count = len(region.frames)
        several = f"the {count} places where maps are highest, the strongest tile’s by a heavier line"
        told.append(f" Framed: {'where the map is highest' if count == 1 else several}.")
    return "".join(told)


def region_sentence(region: Region, class_name: str) -> str:
    """Return what is outlined on a map, measured, and what is framed."""
    name = clip(class_name, 60)
    if not region.pieces:
        return f"The map for “{name}” is 0 everywhere: nothing is outlined."
    which = "all pixels where the map is above 0" if region.everything else "the pixels where it is highest"
    told = (
        f"Map for “{name}”: the stronger the colour, the higher. Outlined: {percent(region.share)} of the"
        f" picture, {which}."
    )
    framed = len(region.frames)
    if region.pieces == 1:
        return f"{told} Framed: the outlined piece."
    peak = "the one with the map’s peak by a heavier line"
    if framed == region.pieces:
        return f"{told} Framed: its {framed} pieces, {peak}."
    several = f"{framed} of its {grouped(region.pieces)} pieces, {peak}"
    some = several if framed > 1 else f"the one of its {grouped(region.pieces)} pieces with the map’s peak"
    rest = f"those without a frame hold {percent(region.unframed)} of what is outlined"
    return f"{told} Framed: {some}; {rest}."


def _inside(box: Frame, width: int, height: int) -> Frame | None:
    """Return a frame cut to the picture; None where nothing of it is left."""
    left, right = (min(max(edge, 0), width) for edge in (box[0], box[2]))
    top, bottom = (min(max(edge, 0), height) for edge in (box[1], box[3]))
    return (left, top, right, bottom) if right > left and bottom > top else None
