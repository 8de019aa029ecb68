"""Column-sampled decoding: produce a random share of the grid cells, all bands of each.

A masked autoencoder over channel tokens has C times the tokens of an image, and its
decoder carries them all. Both losses are means over grid cells, so a random part of the
cells estimates them without bias; all bands of a cell are produced, as the
spectral-to-spectral loss reduces them.
"""

from typing import NamedTuple

from torch import Tensor

from .masking import TokenMask
from .randomness import derive_seed
from .token_numbers import choose, membership, tokens_of

_CELLS = derive_seed('cells')


class SampledCells(NamedTuple):
    """The tokens that the decoder processes for a share of the cells.

    Attributes:
        filled: (B, F) int64, hidden tokens that the decoder carries: those of the
            sampled cells, padded from other cells to one number for all samples.
        produced: (B, K * S) int64, the K bands that a masking names at the S sampled
            cells, band-major.
        weight: (B, K * S), weight of each error in the token-to-token loss.
    """

    filled: Tensor
    produced: Tensor
    weight: Tensor


def count_cells(num_cells: int, share: float) -> int:
    """Return the number of cells of a share in (0, 1]: S, at least 1."""
    if not 0 < share <= 1:
        raise ValueError(
            f'decode_share {share} is outside (0, 1]. It is the share of the grid '
            f'cells that the decoder produces in training, such as 0.25; 1 for all.'
        )
    return max(1, round(num_cells * share))


def sample_cells(
    mask: TokenMask, keys: Tensor, share: float, num_bands: int, num_cells: int
) -> SampledCells:
    """Choose the cells to decode, separately per sample.

    The expectation of the weighted sum of errors is the token-to-token loss: the weight
    of a target is 1 / T divided by the probability that its cell is sampled, for any
    number of targets in the cell.

    Args:
        mask: Tokens of each sample; its hidden and target tokens are of its bands.
        keys: (B,) int64, the key of each sample's draw.
        share: Share of the cells, in (0, 1].
        num_bands: C.
        num_cells: L.
    """
    count = count_cells(num_cells, share)
    cells, filled = None, mask.hidden
    if count < num_cells:
        cells, _ = choose(keys ^ _CELLS, num_cells, count)
        sampled = membership(cells, num_cells).gather(1, filled % num_cells)
        # Stable, so that tokens of the sampled cells come first and stay in order.
        order = sampled.argsort(dim=1, descending=True, stable=True)
        filled = filled.gather(1, order[:, : mask.bands.shape[1] * count])
    produced = tokens_of(mask.bands, num_cells, cells)
    is_target = membership(mask.target, num_bands * num_cells).gather(1, produced)
    return SampledCells(
        filled, produced, is_target * (num_cells / count / mask.target.shape[1])
    )
