"""The list of a run's patches that could not be read."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def list_skipped(folder: str | Path, stage: str, skipped: Mapping[str, str]) -> Path:
    """Add patches to ``skipped.csv`` in a folder, and return that file.

    Args:
        folder: The folder, created if missing.
        stage: The stage that skipped them.
        skipped: Reason for each patch name.
    """
    path = Path(folder) / 'skipped.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(stage, name, reason) for name, reason in skipped.items()]
    table = pd.DataFrame(rows, columns=['stage', 'patch_id', 'reason'])
    if path.is_file():
        table = pd.concat([pd.read_csv(path, dtype=str), table]).drop_duplicates()
    table.to_csv(path, index=False)
    return path
