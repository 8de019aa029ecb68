"""What the datamodules of BigEarthNet say about evaluation, and checks of it."""

from typing import Any

import pandas as pd

from ..datasets.metadata import PatchTable
from ..datasets.names import acquisition


def describe_patches(table: PatchTable) -> pd.DataFrame:
    """Tell where patches are from.

    Args:
        table: The patches.

    Returns:
        ``acquisition`` (the Sentinel-2 scene) and ``country`` ('' where unknown) by
        patch id.
    """
    names = [name.decode() for name in table.s2_names]
    known = table.countries
    countries = [''] * len(names) if known is None else known.tolist()
    return pd.DataFrame(
        {'acquisition': [acquisition(name) for name in names], 'country': countries},
        index=pd.Index(names, name='patch_id'),
    )


def check_evaluation(datamodule: Any) -> None:
    """Check the arguments that decide what is predicted, filled and scored.

    Args:
        datamodule: A datamodule with ``test_groups``, ``test_group_seeds``,
            ``predict_split`` and, for its datasets, ``max_nonfinite``.

    Raises:
        ValueError: If one makes no sense.
    """
    if datamodule.test_groups < 1:
        raise ValueError(
            f'test_groups is {datamodule.test_groups}: it must be at least 1.'
        )
    if datamodule.predict_split not in ('train', 'val', 'test'):
        raise ValueError(
            f'Unknown split {datamodule.predict_split!r}: use train, val or test.'
        )
    share = datamodule.kwargs['max_nonfinite']
    if not 0 <= share <= 1:
        raise ValueError(f'max_nonfinite is {share}: give a share from 0 to 1.')
    seeds = datamodule.test_group_seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f'test_group_seeds is {list(seeds)}: give at least one, each once.'
        )


def check_groups(datamodule: Any, patches: int) -> None:
    """Check that the test groups have a patch each.

    Raises:
        ValueError: If they have not.
    """
    if datamodule.test_groups > patches:
        raise ValueError(
            f'test_groups is {datamodule.test_groups}, more than the {patches} test '
            f'patches: give fewer.'
        )
