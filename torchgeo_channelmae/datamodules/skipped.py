"""The list of the patches of a run that could not be read."""

import csv
from collections.abc import Mapping
from pathlib import Path

_COLUMNS = ('stage', 'patch_id', 'reason')


def list_skipped(folder: str | Path, stage: str, skipped: Mapping[str, str]) -> Path:
    """Add patches to ``skipped.csv`` of a folder; what it has already stays.

    Args:
        folder: The folder, made where it is missing.
        stage: The stage that skipped them.
        skipped: Names of patches: the reason.

    Returns:
        The file: a row a stage and patch.
    """
    path = Path(folder) / 'skipped.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = [_COLUMNS]
    if path.is_file():
        with path.open(newline='') as file:
            rows = [tuple(row) for row in csv.reader(file)]
    rows += [(stage, name, reason) for name, reason in skipped.items()]
    with path.open('w', newline='') as file:
        csv.writer(file).writerows(dict.fromkeys(rows))
    return path
