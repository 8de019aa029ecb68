"""Train some parts of a model and freeze the others."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from ..models.controls import named_layers

PARTS = ('patch_embed', 'spectral', 'positions', 'blocks', 'head')
"""Parts of a model: patch projection (or first layer), band embeddings, positions, all
layers between (with norms and the class token), and head."""


def part_of(name: str, model: nn.Module) -> str:
    """Return the part of a model that a parameter or module belongs to, by its name."""
    places = {
        'spectral': ('spectral_embed', *named_layers(model, 'spectral')),
        'positions': ('pos_embed', *named_layers(model, 'positions')),
        'patch_embed': ('patch_embed', *named_layers(model, 'first_conv')),
        'head': named_layers(model, 'classifier') or ('head',),
    }
    for part, starts in places.items():
        for start in starts:
            if name == start or name.startswith((f'{start}.', f'{start}_drop')):
                return part
    return 'blocks'


def parts_in(model: nn.Module) -> list[str]:
    """Return the parts that a model has, in the order of :data:`PARTS`."""
    found = {part_of(name, model) for name, _ in model.named_parameters()}
    return [part for part in PARTS if part in found]


def find_parts(
    chosen: str | Iterable[str], model: nn.Module, argument: str
) -> list[str]:
    """Return the parts that an argument names: ``all``, joined by ``+``, or a list."""
    known = parts_in(model)
    if chosen == 'all':
        return known
    names = chosen.split('+') if isinstance(chosen, str) else chosen
    parts = [name.strip() for name in names]
    for part in parts:
        if part not in known:
            raise ValueError(
                f'Unknown part {part!r} in {argument}. This model has '
                f'{", ".join(known)}.'
            )
    return parts


def freeze_others(model: nn.Module, parts: Sequence[str]) -> None:
    """Require gradients in some parts of a model only, in place."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name, model) in parts)


def set_frozen_eval(model: nn.Module, parts: Sequence[str]) -> None:
    """Put all modules outside of the trained parts into eval mode, in place."""
    for name, module in model.named_modules():
        if name and part_of(name, model) not in parts:
            module.training = False


def reinitialize(
    model: nn.Module, build: Callable[[], nn.Module], parts: Sequence[str], seed: int
) -> list[str]:
    """Replace parts of a model by new ones, in place; return the names of the tensors.

    Args:
        model: The model.
        build: Creates a model of the same shape.
        parts: Names of the parts.
        seed: Seed of the initialization; other random draws are unaffected.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build().state_dict()
    own = model.state_dict()
    names = [name for name in own if part_of(name, model) in parts]
    for name in names:
        own[name].copy_(fresh[name])
    return names


def describe(model: nn.Module, parts: Sequence[str]) -> str:
    """Summarize what is trained, e.g. ``Trainable: head 3,667 (...); frozen: ...``."""
    counts = dict.fromkeys(parts_in(model), 0)
    for name, parameter in model.named_parameters():
        counts[part_of(name, model)] += parameter.numel()
    trained, frozen = (
        ', '.join(f'{k} {n:,}' for k, n in counts.items() if (k in parts) == wanted)
        for wanted in (True, False)
    )
    total = sum(counts[part] for part in parts)
    return (
        f'Trainable: {trained} ({total:,} parameters); frozen: {frozen or "nothing"}.'
    )
