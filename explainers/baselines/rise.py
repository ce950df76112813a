"""RISE: randomized input sampling for explanation (Petsiuk, Das and Saenko, BMVC 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainers.baselines.base import Attribution, Baseline
from explainers.isolation import Rows
from explainers.maps import FLAT, upsample
from explainers.scoring import DTYPES, Activation, Precision, prepare_for_masks, probabilities


@dataclass(frozen=True, kw_only=True, eq=False)
class Rise(Baseline):
    """Masks the picture at random; a pixel counts as much as the model scores the masks that show it.

    The map is `sum over masks of score * mask / (p * masks)`, as published: divided by the coverage that
    is expected, not by the one that was drawn. A masked-out pixel is 0 in normalised space. One masked
    pass serves all classes of a picture, and all pictures of a call share the masks.

    Attributes:
        masks: masked pictures per picture; the paper takes 4000 for VGG-16 and 8000 for ResNet-50.
        cells: of the grid on which a mask is drawn, along each side.
        p: probability that a cell is shown, in (0, 1).
        seed: of the masks; the global random state is neither read nor changed.
        batch_size: masked pictures per forward pass.
        precision: of the masked passes, "float32" (also None), "bfloat16" or "float16".
    """

    method = "rise"

    activation: Activation = "softmax"
    masks: int = 4000
    cells: int = 7
    p: float = 0.5
    seed: int = 0
    batch_size: int = 16
    precision: Precision = "float32"

    def _attribute(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Attribution:
        dtype, form, forward = torch.float32, torch.contiguous_format, self.forward
        if forward is None:
            dtype, form, forward = DTYPES[self.precision], torch.channels_last, model
            prepare_for_masks(model, self.precision)
        size = (pictures.shape[2], pictures.shape[3])
        grids, shifts = self._drawn(size)
        asked = rows.by_image()
        sums = torch.zeros((len(rows), *size), dtype=torch.float64, device=pictures.device)
        scores = torch.zeros((len(rows), self.masks), device=pictures.device)
        with torch.inference_mode():
            for start in range(0, self.masks, self.batch_size):
                chunk = slice(start, start + self.batch_size)
                masks = grown(grids[chunk].to(pictures.device), shifts[chunk].to(pictures.device), size)
                for image, own in asked.items():
                    masked = (pictures[image] * masks[:, None]).to(dtype, memory_format=form)
                    # A last chunk that is shorter is filled up: the model sees one shape only.
                    masked = F.pad(masked, (0, 0) * 3 + (0, self.batch_size - len(masks)))
                    spread = probabilities(forward(masked), self.activation)[: len(masks)]
                    scores[own, chunk] = spread[:, rows.targets[own]].T
                    sums[own] += torch.einsum("fn,nhw->fhw", scores[own, chunk], masks)
            sums /= self.p * self.masks
            # Where no mask changes the score, the sum only shows how often each pixel happened to be drawn.
            span = scores.amax(dim=1) - scores.amin(dim=1)
            flat = span <= FLAT * scores.amax(dim=1)
            maps = torch.where(flat[:, None, None], 0.0, sums)
        return Attribution(maps.clone(), masks={"input": self.masks})

    def _drawn(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return grids (N, cells, cells) and shifts (N, 2), drawn on the CPU: the same on every device."""
        generator = torch.Generator().manual_seed(self.seed)
        grids = (torch.rand(self.masks, self.cells, self.cells, generator=generator) < self.p).float()
        shares = torch.rand(self.masks, 2, generator=generator)
        cell = torch.tensor([-(-side // self.cells) for side in size])
        return grids, (shares * cell).long()


def grown(grids: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Return smooth masks: random grids up-sampled to one cell more than the picture, then cropped.

    Args:
        grids: (n, s, s) float.
        shifts: (n, 2) int64, first row and column of each crop, below the cell's height and width.
        size: H and W of the picture.

    Returns:
        (n, H, W) float, within the range of the grids.
    """
    (height, width), cells = size, grids.shape[1]
    full = ((cells + 1) * -(-height // cells), (cells + 1) * -(-width // cells))
    large = upsample(grids, full)
    rows = shifts[:, :1] + torch.arange(height, device=grids.device)
    columns = shifts[:, 1:] + torch.arange(width, device=grids.device)
    number = torch.arange(len(grids), device=grids.device)[:, None, None]
    return large[number, rows[:, :, None], columns[:, None, :]]
