"""Which tokens the encoder sees and which the decoder must produce.

Tokens are numbered band-major: token ``c * L + l`` is band ``c`` at grid cell ``l``. A
strategy draws one :class:`TokenMask` per sample from the sample's key only, so that it
is the same in every batch, process and run.

=========================  =========================  ==========================
strategy                   the encoder sees           the decoder produces
=========================  =========================  ==========================
``random`` (S1)            some tokens of any band    all others
``same_band`` (S2)         some tokens of one band    the others of that band
``cross_band`` (S3, S4)    one band, or some          all other bands
``columns``                some cells, in all bands   the other cells
``channels_and_patches``   some tokens of some bands  all others
=========================  =========================  ==========================

S1 to S4 are those of the paper; ``columns`` is how masked autoencoders that put all
bands in one token mask; ``channels_and_patches`` follows ChA-MAEViT
(https://arxiv.org/abs/2503.19331).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .randomness import derive_seed
from .token_numbers import choose, tokens_of

_BANDS = derive_seed('bands')


class TokenMask(NamedTuple):
    """The roles of the N = C * L tokens of each sample of a batch.

    All are ascending int64. Targets, and the tokens of `bands` at all cells, are among
    the visible and the hidden ones; other tokens are ignored.

    Attributes:
        visible: (B, V), tokens that the encoder sees.
        hidden: (B, M), tokens that the decoder fills in.
        target: (B, T), tokens whose error is the token-to-token loss.
        bands: (B, K), bands that the spectral-to-spectral loss reduces, at all cells.
    """

    visible: Tensor
    hidden: Tensor
    target: Tensor
    bands: Tensor


class Masking(Protocol):
    """A masking strategy."""

    def check(self, num_bands: int, num_cells: int) -> None:
        """Raise a ValueError if it cannot mask images of C bands and L cells."""

    def __call__(
        self, keys: Tensor, shared_key: int | Tensor, num_bands: int, num_cells: int
    ) -> TokenMask:
        """Mask the tokens of a batch, equally many in all samples.

        Args:
            keys: (B,) int64, the key of each sample's draw: equal keys, equal masks.
            shared_key: Key of what is drawn for the whole batch, a number or () int64.
            num_bands: C.
            num_cells: L.
        """


def count_visible(num_tokens: int, mask_ratio: float) -> int:
    """Return how many tokens a ratio in (0, 1) leaves visible: some, but not all."""
    if not 0 < mask_ratio < 1:
        raise ValueError(
            f'mask_ratio {mask_ratio} is outside (0, 1). It is the share of tokens '
            f'hidden from the encoder, such as 0.75.'
        )
    num_visible = num_tokens - round(num_tokens * mask_ratio)
    if not 0 < num_visible < num_tokens:
        raise ValueError(
            f'mask_ratio {mask_ratio} leaves {num_visible} of {num_tokens} tokens '
            f'visible. Use one that leaves some visible and hides some.'
        )
    return num_visible


@dataclass(frozen=True)
class RandomTokens:
    """Hide random tokens of any band and cell (the paper's S1).

    Attributes:
        mask_ratio: Share of the N tokens that is hidden.
    """

    mask_ratio: float = 0.75

    def check(self, num_bands: int, num_cells: int) -> None:
        """Check the ratio."""
        count_visible(num_bands * num_cells, self.mask_ratio)

    def __call__(
        self, keys: Tensor, shared_key: int | Tensor, num_bands: int, num_cells: int
    ) -> TokenMask:
        """Mask a batch; both losses read all bands."""
        num_tokens = num_bands * num_cells
        count = count_visible(num_tokens, self.mask_ratio)
        visible, hidden = choose(keys, num_tokens, count)
        return TokenMask(visible, hidden, hidden, _all_bands(keys, num_bands))


@dataclass(frozen=True)
class SameBand:
    """Show some tokens of one random band and reconstruct that band (the paper's S2).

    The paper says "input and reconstruct one random band". Without masking inside the
    band that would be a plain autoencoder, so by default it is masked.

    Attributes:
        mask_ratio: Share of the band's L tokens that is hidden.
        visible: 'some' of the band's tokens, or 'all' of them; in that case all are
            targets and the ratio is not used.
        shared: Draw one band for the whole batch, not per sample.
    """

    mask_ratio: float = 0.75
    visible: str = 'some'
    shared: bool = False

    def check(self, num_bands: int, num_cells: int) -> None:
        """Check ratio and option."""
        if self.visible not in ('some', 'all'):
            raise ValueError(
                f"masking_options visible is {self.visible!r}: use 'some' or 'all' "
                f'of the tokens of the band.'
            )
        if self.visible == 'some':
            count_visible(num_cells, self.mask_ratio)

    def __call__(
        self, keys: Tensor, shared_key: int | Tensor, num_bands: int, num_cells: int
    ) -> TokenMask:
        """Mask a batch; both losses read the one band."""
        bands, _ = _choose_bands(keys, shared_key, num_bands, 1, self.shared)
        if self.visible == 'all':
            tokens = tokens_of(bands, num_cells)
            return TokenMask(tokens, tokens[:, :0], tokens, bands)
        count = count_visible(num_cells, self.mask_ratio)
        seen, unseen = choose(keys, num_cells, count)
        visible, hidden = bands * num_cells + seen, bands * num_cells + unseen
        return TokenMask(visible, hidden, hidden, bands)


@dataclass(frozen=True)
class CrossBand:
    """Show whole random bands and reconstruct all others (the paper's S3 and S4).

    Attributes:
        bands: How many are shown: 1 (S3), 3 (S4).
        shared: Draw the bands for the whole batch, not per sample.
    """

    bands: int = 1
    shared: bool = False

    def check(self, num_bands: int, num_cells: int) -> None:
        """Check that bands are left to reconstruct."""
        if self.bands < 1:
            raise ValueError(f'masking_options bands is {self.bands}. Show 1 or more.')
        if self.bands >= num_bands:
            raise ValueError(
                f'masking cross_band shows {self.bands} bands and reconstructs the '
                f'others, but there are {num_bands} in all. Show fewer '
                f'(masking_options bands), or give more bands.'
            )

    def __call__(
        self, keys: Tensor, shared_key: int | Tensor, num_bands: int, num_cells: int
    ) -> TokenMask:
        """Mask a batch; both losses read the bands that are not shown."""
        shown, others = _choose_bands(
            keys, shared_key, num_bands, self.bands, self.shared
        )
        hidden = tokens_of(others, num_cells)
        return TokenMask(tokens_of(shown, num_cells), hidden, hidden, others)


@dataclass(frozen=True)
class Columns:
    """Hide random cells in all bands.

    Attributes:
        mask_ratio: Share of the L cells that is hidden.
    """

    mask_ratio: float = 0.75

    def check(self, num_bands: int, num_cells: int) -> None:
        """Check the ratio."""
        count_visible(num_cells, self.mask_ratio)

    def __call__(
        self, keys: Tensor, shared_key: int | Tensor, num_bands: int, num_cells: int
    ) -> TokenMask:
        """Mask a batch; both losses read all bands."""
        count = count_visible(num_cells, self.mask_ratio)
        bands = _all_bands(keys, num_bands)
        visible, hidden = (
            tokens_of(bands, num_cells, cells)
            for cells in choose(keys, num_cells, count)
        )
        return TokenMask(visible, hidden, hidden, bands)


@dataclass(frozen=True)
class ChannelsAndPatches:
    """Hide random bands entirely, and random tokens of the others.

    Attributes:
        mask_ratio: Share of the tokens of the other bands that is hidden.
        hidden_bands: Share of the bands that is hidden entirely: at least one band, and
            not all.
        shared: Draw these bands for the whole batch, not per sample.
    """

    mask_ratio: float = 0.75
    hidden_bands: float = 0.5
    shared: bool = False

    def check(self, num_bands: int, num_cells: int) -> None:
        """Check both shares."""
        if not 0 < self.hidden_bands < 1:
            raise ValueError(
                f'masking_options hidden_bands is {self.hidden_bands}. Give the share '
                f'of the bands to hide entirely, between 0 and 1.'
            )
        if num_bands < 2:
            raise ValueError(
                'masking channels_and_patches hides some bands entirely and shows '
                'others. It needs 2 bands or more.'
            )
        shown = num_bands - self._count(num_bands)
        count_visible(shown * num_cells, self.mask_ratio)

    def _count(self, num_bands: int) -> int:
        return min(max(round(num_bands * self.hidden_bands), 1), num_bands - 1)

    def __call__(
        self, keys: Tensor, shared_key: int | Tensor, num_bands: int, num_cells: int
    ) -> TokenMask:
        """Mask a batch; both losses read all bands."""
        out, shown = _choose_bands(
            keys, shared_key, num_bands, self._count(num_bands), self.shared
        )
        tokens = tokens_of(shown, num_cells)
        count = count_visible(tokens.shape[1], self.mask_ratio)
        seen, unseen = choose(keys, tokens.shape[1], count)
        hidden = torch.cat([tokens.gather(1, unseen), tokens_of(out, num_cells)], dim=1)
        hidden = hidden.sort(dim=1).values
        bands = _all_bands(keys, num_bands)
        return TokenMask(tokens.gather(1, seen), hidden, hidden, bands)


STRATEGIES: dict[str, type[Any]] = {
    'random': RandomTokens,
    'same_band': SameBand,
    'cross_band': CrossBand,
    'columns': Columns,
    'channels_and_patches': ChannelsAndPatches,
}


def make_masking(
    name: str, mask_ratio: float = 0.75, options: Mapping[str, Any] | None = None
) -> Masking:
    """Make a strategy from plain values.

    Args:
        name: One of :data:`STRATEGIES`.
        mask_ratio: Share of tokens to hide, for the strategies that have it.
        options: Further attributes of the strategy.

    Raises:
        ValueError: If there is no such strategy, or it has no such option.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f'Unknown masking {name!r}. Use one of {", ".join(STRATEGIES)}.'
        )
    strategy = STRATEGIES[name]
    types = {field.name: type(field.default) for field in fields(strategy)}
    own = [option for option in types if option != 'mask_ratio']
    for option, value in (options or {}).items():
        if option not in own:
            has = f'its options are {", ".join(own)}' if own else 'it has none'
            raise ValueError(f'masking {name} has no option {option!r}: {has}.')
        number = types[option] is float and type(value) is int
        if type(value) is not types[option] and not number:
            raise ValueError(
                f'masking_options {option} is {value!r}. Give a value of type '
                f'{types[option].__name__}.'
            )
    ratio = {'mask_ratio': mask_ratio} if 'mask_ratio' in types else {}
    masking: Masking = strategy(**ratio, **(options or {}))
    return masking


def _choose_bands(
    keys: Tensor, shared_key: int | Tensor, num_bands: int, count: int, shared: bool
) -> tuple[Tensor, Tensor]:
    """Choose bands independently of the other draws of the same keys."""
    keys = torch.zeros_like(keys) + shared_key if shared else keys
    return choose(keys ^ _BANDS, num_bands, count)


def _all_bands(keys: Tensor, num_bands: int) -> Tensor:
    return torch.arange(num_bands, device=keys.device).expand(len(keys), -1)
