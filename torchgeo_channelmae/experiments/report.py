"""Tables in Markdown, and folders of results."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..files import whole


def markdown(table: pd.DataFrame, numbers: int) -> str:
    """Return a table of strings in Markdown, the last ``numbers`` columns right."""
    align = ['left'] * (table.shape[1] - numbers) + ['right'] * numbers
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)


def write_folder(
    out: Path, name: str, table: pd.DataFrame, text: str, figure: Figure | None = None
) -> None:
    """Write ``NAME.csv``, ``NAME.md`` and ``NAME.png`` into a new folder."""
    with whole(out) as folder:
        folder.mkdir()
        table.to_csv(folder / f'{name}.csv', index=False, float_format='%.6f')
        (folder / f'{name}.md').write_text(text)
        if figure is not None:  # the same bytes each time
            figure.savefig(folder / f'{name}.png', dpi=150, metadata={'Software': None})
