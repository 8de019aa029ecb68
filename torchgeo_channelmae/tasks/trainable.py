"""Parts of a model that learn while the others stay as they are."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ..models.controls import named_layers

PARTS = ('patch_embed', 'spectral', 'positions', 'blocks', 'head')
"""Parts of a model: the projection of patches (or first layer), the band embeddings,
the positions, all layers between (with norms and the class token), and the head."""


def part_of(name: str, model: nn.Module) -> str:
    """Say to which part of a model a parameter or module belongs.

    Args:
        name: Its dotted name.
        model: A model of timm; its configuration names the first layer and the head.
    """
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
    """List the parts that a model has, in the order of :data:`PARTS`."""
    found = {part_of(name, model) for name, _ in model.named_parameters()}
    return [part for part in PARTS if part in found]


def check_parts(parts: Iterable[str], model: nn.Module, argument: str) -> list[str]:
    """Check that a model has parts.

    Args:
        parts: Names of parts.
        model: The model.
        argument: Name of the argument that they come from.

    Raises:
        ValueError: If one is no part of the model.
    """
    chosen, there = list(parts), parts_in(model)
    for part in chosen:
        if part not in there:
            raise ValueError(
                f'{argument} names {part!r}, which this model has not: its parts are '
                f'{", ".join(there)}.'
            )
    return chosen


def trainable_parts(trainable: str, model: nn.Module) -> list[str]:
    """Read which parts learn.

    Args:
        trainable: ``all``, or parts with ``+`` between them.
        model: The model.

    Raises:
        ValueError: If one is no part of the model.
    """
    if trainable == 'all':
        return parts_in(model)
    parts = [part.strip() for part in trainable.split('+')]
    return check_parts(parts, model, 'trainable')


def freeze_others(model: nn.Module, parts: Sequence[str]) -> None:
    """Let only some parts of a model have gradients, in place."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name, model) in parts)


def rest_others(model: nn.Module, parts: Sequence[str]) -> None:
    """Put all modules outside of some parts into eval mode, in place.

    Without dropout, stochastic depth and batch statistics there, what is frozen
    computes the same in training as in evaluation.
    """
    for name, module in model.named_modules():
        if name and part_of(name, model) not in parts:
            module.training = False


def restart(model: nn.Module, fresh: nn.Module, parts: Sequence[str]) -> list[str]:
    """Copy some parts from a model that has not been trained, in place.

    Args:
        model: The model.
        fresh: Another one of the same make.
        parts: Names of the parts.

    Returns:
        Names of the tensors that were copied.
    """
    values = fresh.state_dict()
    names = [name for name in values if part_of(name, model) in parts]
    model.load_state_dict({name: values[name] for name in names}, strict=False)
    return names


def describe(model: nn.Module, parts: Sequence[str]) -> str:
    """Say in a line what learns, e.g. ``Trainable: head 3,667; frozen: ...``."""
    counts = dict.fromkeys(parts_in(model), 0)
    for name, parameter in model.named_parameters():
        counts[part_of(name, model)] += parameter.numel()
    listed = {
        state: ', '.join(
            f'{part} {count:,}'
            for part, count in counts.items()
            if (part in parts) == (state == 'Trainable')
        )
        for state in ('Trainable', 'frozen')
    }
    total = sum(counts[part] for part in parts)
    return (
        f'Trainable: {listed["Trainable"]} ({total:,} parameters); '
        f'frozen: {listed["frozen"] or "nothing"}.'
    )


def fresh_copy(build: Any, seed: int) -> nn.Module:
    """Build a model from a seed, leaving all other draws as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = build()
    return model
