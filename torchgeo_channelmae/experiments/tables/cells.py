"""What the tables consist of: rows, their cells, and the paper's numbers.

The paper is "Overlap-Free Modality Generalization in Remote Sensing Foundation Models"
(Zhambulova et al., EurIPS 2025 workshop REO). Rows that it lacks are controls.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Name of a sensor in capitals: of an overlay in ``conf/paper/bands``.
Target = str
#: Mean and standard deviation in percent, of mAP and of F1, as printed.
PaperScores = tuple[float, float, float, float]


@dataclass(frozen=True)
class Pretraining:
    """A masked autoencoder.

    Attributes:
        bands: Name of an overlay in ``conf/paper/bands``: what it reads.
        patch: Side of a patch in pixels.
        overlays: Further overlays in ``conf/paper``, such as ``masking/s3``.
    """

    bands: str = 's2'
    patch: int = 16
    overlays: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name for folders, such as ``pretrain-s2-p16-masking-s3``."""
        parts = [overlay.replace('/', '-') for overlay in self.overlays]
        return '-'.join(['pretrain', self.bands, f'p{self.patch}', *parts])


@dataclass(frozen=True)
class Cell:
    """A model that is fine-tuned on a sensor and tested there.

    Attributes:
        row: Name of its row.
        target: Sensor that it is fine-tuned and tested on.
        model: Name of a model of timm; None for a channel-token encoder.
        patch: Side of a patch in pixels, of a channel-token encoder.
        pretraining: Where its weights come from, None for elsewhere.
        weights: Published weights that it starts from instead, which have to be
            downloaded; None for none.
        trainable: Parts that learn.
        reinit: Parts that start afresh.
        fraction: Share of the training labels, None for the run's own.
        scratch: Name of the cell without pretraining that it is compared with.
        ceiling: Name of the cell pretrained on the target itself.
    """

    row: str
    target: Target
    model: str | None = None
    patch: int = 16
    pretraining: Pretraining | None = None
    weights: str | None = None
    trainable: str = 'all'
    reinit: tuple[str, ...] = ()
    fraction: float | None = None
    scratch: str | None = None
    ceiling: str | None = None

    @property
    def name(self) -> str:
        """The cell's name, such as ``s2-p16:S1``."""
        return f'{self.row}:{self.target}'


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: Short name, as on the command line.
        title: What the reader sees.
        cells: Its cells by target.
        paper: The paper's scores by target; none for a control.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    paper: Mapping[Target, PaperScores] = field(default_factory=dict)

    @property
    def is_control(self) -> bool:
        """Whether the paper lacks this row."""
        return not self.paper


@dataclass(frozen=True)
class Table:
    """A table: its name on the command line, its title, its targets and its rows."""

    name: str
    title: str
    targets: tuple[Target, ...]
    rows: tuple[Row, ...]

    @property
    def cells(self) -> dict[str, Cell]:
        """All cells by name."""
        return {cell.name: cell for row in self.rows for cell in row.cells}
