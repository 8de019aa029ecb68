"""timm's Muon, with a faster orthogonalization on a CPU."""

from typing import Any
from unittest.mock import patch

import torch
from timm.optim import muon
from torch import Tensor

_timms_orthogonalize = muon.zeropower_via_newtonschulz


class Muon(muon.Muon):
    """timm's Muon; on a CPU it orthogonalizes in float32, by :func:`orthogonalize`.

    timm computes in bfloat16, and has no argument for that. A CPU without instructions
    for it, such as most laptops', takes some 50 times as long.
    """

    def step(self, closure: Any = None) -> Any:
        """Perform a step; return what the closure does."""
        with patch.object(muon, 'zeropower_via_newtonschulz', orthogonalize):
            return super().step(closure)


def orthogonalize(
    update: Tensor, steps: int, coefficients: list[tuple[float, ...]], **options: Any
) -> Tensor:
    """Bring the singular values of an update near 1, by the Newton-Schulz iteration.

    Each step multiplies X by the polynomial a + b A + c A² of A = X Xᵀ. Of a matrix
    that is long on a CPU, only the small square A and the product of the polynomials
    are iterated (about half of the work), and X is multiplied once, at the end.

    Args:
        update: A matrix, or a batch of them.
        steps: Number of steps.
        coefficients: a, b and c of each step; the last again for further steps.
        **options: eps and others of timm's function, which has the other cases.

    Returns:
        The update: in bfloat16 if it is on a CUDA device, else in float32.
    """
    if update.is_cuda:
        return _timms_orthogonalize(update, steps, coefficients, **options)
    short, long = sorted(update.shape[-2:])
    if update.ndim > 2 or long < 2 * short or options.get('scale_eps'):
        float32 = {'dtype': torch.float32}
        return _timms_orthogonalize(update, steps, coefficients, **options, **float32)
    x = update.float() if update.shape[0] == short else update.float().mT
    norm = x.norm() * options.get('safety_factor', 1.0)
    x = x / norm.clamp(min=options.get('eps', muon.MUON_EPS))
    square, product = x @ x.mT, None
    for step in range(steps):
        a, b, c = coefficients[min(step, len(coefficients) - 1)]
        factor = torch.addmm(square, square, square, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            square = factor @ square @ factor
    x = x if product is None else product @ x
    return x if update.shape[0] == short else x.mT
