"""Load pretrained tensors into an encoder or decoder, bands by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from torch import Tensor

from .channelvit import ChannelViT
from .checkpoints import bands_of
from .decoder import ChannelMAEDecoder
from .fresh_bands import FreshBands, init_band
from .tokens import SPECTRAL, resample_positions

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class LoadReport:
    """Result of a load, by names of tensors and bands.

    Attributes:
        loaded: Tensors that were loaded unchanged.
        resampled: Tensors that were resampled to another grid.
        kept_bands: Bands that have their embedding from the weights.
        fresh_bands: Each band that the weights lack, and how it was initialized.
        fresh: Other tensors of the model that were not loaded, and why.
        left_over: Tensors of the weights that the model does not have.
    """

    loaded: tuple[str, ...]
    resampled: tuple[str, ...]
    kept_bands: tuple[str, ...]
    fresh_bands: dict[str, str]
    fresh: dict[str, str]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        """Return the report in one line."""
        parts = {
            'resampled': ', '.join(self.resampled),
            'bands with their weights': ', '.join(self.kept_bands),
            'fresh bands': _grouped(self.fresh_bands),
            'other fresh tensors': _grouped(self.fresh),
            'left over': _grouped(dict.fromkeys(self.left_over, ''), 2),
        }
        texts = [f'{title}: {text}' for title, text in parts.items() if text]
        return '; '.join([f'{len(self.loaded)} tensors loaded', *texts]) + '.'


def load_encoder(
    model: ChannelViT,
    state_dict: Tensors,
    policy: FreshBands = 'sample',
    *,
    adopt_grid: bool = False,
) -> LoadReport:
    """Load pretrained tensors into an encoder, bands by name; report what was done.

    The head is never loaded.

    Args:
        model: The encoder.
        state_dict: Tensors by name, see :func:`~.checkpoints.read_checkpoint`.
        policy: Initialization of bands that the weights lack.
        adopt_grid: Where the grids differ, whether the encoder adopts the grid of the
            weights, with its image size, and resamples to each input from there.
            Otherwise positions are resampled once, to the encoder's own grid.

    Raises:
        ValueError: If fewer than half of the encoder's tensors have a counterpart, or
            the policy is unknown. The encoder is unchanged then.
    """
    if policy not in get_args(FreshBands):
        known = ', '.join(get_args(FreshBands))
        raise ValueError(f'Unknown fresh_bands {policy!r}. Use {known}.')
    own = {k: v for k, v in model.state_dict().items() if not k.startswith('head.')}
    values, report = _match(own, state_dict, model.patch_embed.grid_size, adopt_grid)
    expected = len(own) - len(model.bands)
    if 2 * len(report.fresh) > expected:
        name, why = next(iter(report.fresh.items()))
        raise ValueError(
            f'The weights match {expected - len(report.fresh)} of the {expected} '
            f'tensors of the model, so they belong to another model. The first '
            f'difference is {name} ({why}).'
        )
    rows = {
        key.removeprefix(SPECTRAL): value
        for key, value in state_dict.items()
        if key.startswith(SPECTRAL) and value.shape == (model.embed_dim,)
    }
    origins = {}
    for band in report.fresh_bands:
        values[SPECTRAL + band], origins[band] = init_band(band, rows, model, policy)
    model.load_state_dict(values, strict=False)
    return replace(report, fresh_bands=origins)


def load_decoder(decoder: ChannelMAEDecoder, state_dict: Tensors) -> LoadReport | None:
    """Load the decoder of a pretraining, bands by name, in place.

    Args:
        decoder: The decoder.
        state_dict: Tensors by name, a decoder's under ``decoder.``.

    Returns:
        What was done; None if the weights have no decoder, or one of another width or
        depth, and this one is unchanged.
    """
    stored = {
        key.removeprefix('decoder.'): value
        for key, value in state_dict.items()
        if key.startswith('decoder.')
    }
    values, report = _match(decoder.state_dict(), stored, decoder.grid_size)
    if report.fresh:
        return None
    decoder.load_state_dict(values, strict=False)
    return report


def _match(
    own: Tensors, stored: Tensors, grid: Sequence[int], adopt_grid: bool = False
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the stored tensors that fit, and a report for random fresh bands."""
    values: dict[str, Tensor] = {}
    resampled: list[str] = []
    missing: dict[str, str] = {}
    for name, tensor in own.items():
        found = stored.get(name)
        if found is None:
            missing[name] = 'not in the weights'
            continue
        moved = None
        if name == 'pos_embed' and found.shape != tensor.shape:
            moved = resample_positions(found, tensor.shape[2], grid)
        if found.shape == tensor.shape or (moved is not None and adopt_grid):
            values[name] = found
        elif moved is not None:
            values[name] = moved
            resampled.append(name)
        else:
            shapes = ['x'.join(map(str, each.shape)) for each in (found, tensor)]
            missing[name] = f'{shapes[0]} in the weights, {shapes[1]} here'
    return values, LoadReport(
        loaded=tuple(name for name in values if name not in resampled),
        resampled=tuple(resampled),
        kept_bands=tuple(bands_of(values)),
        fresh_bands=dict.fromkeys(bands_of(missing), 'random'),
        fresh={k: v for k, v in missing.items() if not k.startswith(SPECTRAL)},
        left_over=tuple(name for name in stored if name not in values),
    )


def _grouped(reasons: Mapping[str, str], most: int = 5) -> str:
    """List names with reasons; `most` or more of one module and reason as a count."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault((name.split('.')[0], reason), []).append(name)
    texts = []
    for (module, reason), names in groups.items():
        if len(names) >= most:
            reason = ', '.join(filter(None, [f'{len(names)} tensors', reason]))
            names = [module]
        texts += [f'{name} ({reason})' if reason else name for name in names]
    return ', '.join(texts)
