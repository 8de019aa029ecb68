"""Which samples learn, tune and are scored, and the scores."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .classifiers import (
    PROBES,
    Floats,
    chance,
    check_labels,
    check_neighbors,
    count_classes,
    hold_out,
    knn,
    linear,
    one_hot,
    scores,
)


class Protocol:
    """Probes learn on ``train``, are tuned on ``val`` and scored on ``test``.

    Where ``val`` is scored, or there is none, every fifth of ``train`` tunes and does
    not learn.

    Attributes:
        num_classes: Classes that occur among the samples scored.
    """

    def __init__(
        self,
        labels: Mapping[str, Tensor | None],
        scored: str,
        whose: str,
        neighbors: int = 10,
        groups: tuple[int, Sequence[int]] | None = None,
    ) -> None:
        """Sort samples into the three roles.

        Args:
            labels: Labels by split.
            scored: The split to score.
            whose: Name of the data, for errors.
            neighbors: Neighbours that vote.
            groups: Number of random groups and seeds, for a mean and std over them.

        Raises:
            ValueError: If labels are no classes, or there are fewer than k samples.
        """
        known = {part: check_labels(value, whose) for part, value in labels.items()}
        self._scored = scored
        self._held: Tensor | None = None
        if scored == 'val' or 'val' not in known:
            self._held = torch.from_numpy(hold_out(len(known['train'])))
            self._train = known['train'][~self._held]
            self._tune = known['train'][self._held]
        else:
            self._train, self._tune = known['train'], known['val']
        self._test = known[scored]
        self._classes = count_classes(*known.values())
        self._neighbors = neighbors
        self._groups = groups
        self.num_classes = int(one_hot(self._test, self._classes).any(0).sum())
        check_neighbors(neighbors, len(self._train))
        if not len(self._tune):
            raise ValueError(
                f'{len(self._train)} training samples are too few to tune on some of '
                f'them: give at least 5.'
            )

    def chance(self) -> dict[str, float]:
        """Score the class frequencies of the training samples, told of each sample."""
        guesses = [
            chance(self._train, len(labels), self._classes)
            for labels in (self._test, self._tune)
        ]
        return scores(guesses[0], self._test, (guesses[1], self._tune), self._groups)

    def scores(
        self, features: Mapping[str, Floats], probes: Sequence[str] = PROBES
    ) -> dict[str, dict[str, float]]:
        """Score features.

        Args:
            features: (n, F) by split.
            probes: ``knn``, ``linear`` or both.

        Returns:
            Scores by probe, see :func:`scores`; of ``linear`` also ``C``.
        """
        x = np.asarray(features['train'])
        if self._held is None:
            tune = features['val']
        else:
            held = self._held.numpy()
            x, tune = x[~held], x[held]
        wanted = [features[self._scored], tune]
        found = {}
        for probe in probes:
            if probe == 'knn':
                made = [
                    knn(x, self._train, part, self._classes, self._neighbors)
                    for part in wanted
                ]
                chosen = {}
            else:
                made, c = linear(
                    x, self._train, (tune, self._tune), wanted, self._classes
                )
                chosen = {'C': c}
            found[probe] = chosen | scores(
                made[0], self._test, (made[1], self._tune), self._groups
            )
        return found
