"""The rows of every table, and the controls beside them."""

from collections.abc import Sequence
from dataclasses import replace

from .cells import Cell, PaperScores, Pretraining, Row, Table, Target
from .sensors import DEFAULT, title_of

NAMES = ('1', '2', '3', 'labels', 'matrix')

_BOTH: tuple[Target, ...] = ('S1', 'S2')
_S1: tuple[Target, ...] = ('S1',)
_OPTICAL_MAE = 'ViTBase16_Weights.SENTINEL2_ALL_MAE'
_RADAR_MAE = 'ViTBase16_Weights.SENTINEL1_GRD_MAE'


def table(
    name: str,
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    sensors: Sequence[str] = DEFAULT,
) -> Table:
    """Return a table.

    Args:
        name: Its name, one of :data:`NAMES`.
        fractions: Shares of the training labels, of the table of label efficiency.
        sensors: Names of the sensors of the matrix.

    Raises:
        ValueError: If there is no such table.
    """
    if name == 'labels':
        return _labels(fractions)
    if name == 'matrix':
        return _matrix(sensors)
    tables = {'1': _sources, '2': _maskings, '3': _parts}
    if name not in tables:
        raise ValueError(f'There is no table {name!r}: choose {", ".join(NAMES)}.')
    return tables[name]()


def _sources() -> Table:
    return Table(
        name='1',
        title='Pretraining sources and patch sizes',
        targets=_BOTH,
        rows=(
            _scratch(16, (68.47, 0.13, 56.82, 0.14), (78.09, 0.05, 67.79, 0.07)),
            _pretrained(
                's2-p16',
                'Sentinel-2, patch 16',
                Pretraining(),
                (71.02, 0.13, 59.18, 0.15),
                (81.18, 0.08, 70.78, 0.11),
            ),
            _pretrained(
                'rgb-p16',
                'RGB, patch 16',
                Pretraining('rgb'),
                (70.83, 0.14, 58.93, 0.14),
                (80.25, 0.07, 69.91, 0.10),
            ),
            _pretrained(
                's2-p8',
                'Sentinel-2, patch 8',
                Pretraining(patch=8),
                (70.81, 0.14, 59.53, 0.17),
                (82.35, 0.09, 72.14, 0.09),
            ),
            _scratch(8),
            _pretrained(
                's1-p16',
                'Sentinel-1, patch 16 (ceiling on Sentinel-1)',
                Pretraining('s1'),
            ),
            _row('random-head', 'Frozen random encoder, patch 16', trainable='head'),
            _row('resnet50', 'ResNet-50 from scratch', model='resnet50'),
            _row(
                'optical-mae',
                'ViT-B, MAE on SSL4EO-S12 Sentinel-2 L1C (TorchGeo)',
                model='vit_base_patch16_224',
                weights=_OPTICAL_MAE,
            ),
            _row(
                'radar-mae',
                'ViT-B, MAE on SSL4EO-S12 Sentinel-1 (TorchGeo)',
                model='vit_base_patch16_224',
                weights=_RADAR_MAE,
            ),
        ),
    )


def _maskings() -> Table:
    def masked(
        name: str,
        title: str,
        overlay: str | None,
        s1: PaperScores | None = None,
        s2: PaperScores | None = None,
    ) -> Row:
        overlays = () if overlay is None else (overlay,)
        return _pretrained(name, title, Pretraining(overlays=overlays), s1, s2)

    return Table(
        name='2',
        title='Masking and reconstruction strategies',
        targets=_BOTH,
        rows=(
            masked(
                'masking-s1',
                'S1: random over bands and cells',
                None,
                (71.02, 0.13, 59.18, 0.15),
                (81.18, 0.08, 70.78, 0.11),
            ),
            masked(
                'masking-s2',
                'S2: one band in, the same band out',
                'masking/s2',
                (69.92, 0.13, 58.15, 0.17),
                (78.66, 0.08, 68.01, 0.10),
            ),
            masked(
                'masking-s3',
                'S3: one band in, the others out',
                'masking/s3',
                (68.42, 0.11, 56.46, 0.15),
                (74.73, 0.10, 63.61, 0.12),
            ),
            masked(
                'masking-s4',
                'S4: three bands in, the others out',
                'masking/s4',
                (70.25, 0.13, 58.76, 0.12),
                (71.19, 0.11, 61.24, 0.11),
            ),
            _scratch(16),
            masked('masking-s2-all', 'S2, the whole band in', 'masking/s2_all'),
            masked('columns', 'Columns: all bands of a cell', 'masking/columns'),
            masked(
                'channels-and-patches',
                'Channels and patches',
                'masking/channels_and_patches',
            ),
            masked('ratio90', 'S1 at a ratio of 0.9', 'ratio90'),
            masked('sum', 'S1, spectral term by sum', 'sum'),
        ),
    )


def _parts() -> Table:
    def part(
        name: str, title: str, trainable: str, reinit: tuple[str, ...], s1: PaperScores
    ) -> Row:
        cell = Cell(
            name,
            'S1',
            pretraining=Pretraining(),
            trainable=trainable,
            reinit=reinit,
            scratch=f'random-{trainable.replace("+", "-")}:S1',
        )
        return Row(name, title, (cell,), {'S1': s1})

    def random(title: str, trainable: str) -> Row:
        name = f'random-{trainable.replace("+", "-")}'
        return Row(name, title, (Cell(name, 'S1', trainable=trainable),))

    spectral = 'patch_embed+spectral+head'
    return Table(
        name='3',
        title='Partial fine-tuning',
        targets=_S1,
        rows=(
            part('head', 'Head', 'head', (), (56.58, 0.14, 55.08, 0.14)),
            part(
                'patch_embed',
                'Patch embedding + head',
                'patch_embed+head',
                (),
                (57.22, 0.15, 55.67, 0.15),
            ),
            part(
                'patch_embed-reinit',
                'Patch embedding (reinitialized) + head',
                'patch_embed+head',
                ('patch_embed',),
                (56.81, 0.16, 54.95, 0.14),
            ),
            part(
                'spectral',
                'Patch embedding + spectral encoding + head',
                spectral,
                (),
                (57.51, 0.15, 55.87, 0.15),
            ),
            _only(
                _pretrained('s2-p16', 'All, pretrained on Sentinel-2', Pretraining())
            ),
            _only(_scratch(16, title='All, from scratch')),
            random('Random encoder: head', 'head'),
            random('Random encoder: patch embedding + head', 'patch_embed+head'),
            random('Random encoder: patch embedding + spectral + head', spectral),
        ),
    )


def _labels(fractions: Sequence[float]) -> Table:
    rows = []
    for fraction in fractions:
        percent = f'{100 * fraction:g}'
        for row in (
            _scratch(16, title='From scratch'),
            _pretrained('s2-p16', 'Sentinel-2, patch 16', Pretraining()),
        ):
            name = f'{row.name}-{percent}'
            cell = replace(
                row.cells[0],
                row=name,
                fraction=fraction,
                scratch=row.cells[0].scratch and f'scratch-p16-{percent}:S1',
                ceiling=None,
            )
            rows.append(Row(name, f'{row.title}, {percent} % of the labels', (cell,)))
    return Table('labels', 'Label efficiency', _S1, tuple(rows))


def _matrix(sensors: Sequence[str]) -> Table:
    targets = tuple(sensor.upper() for sensor in sensors)

    def cells(row: str, source: str | None) -> tuple[Cell, ...]:
        return tuple(
            Cell(
                row,
                target,
                pretraining=None if source is None else Pretraining(source),
                scratch=None if source is None else f'scratch-p16:{target}',
                ceiling=None
                if source is None or source == target.lower()
                else f'{target.lower()}-p16:{target}',
            )
            for target in targets
        )

    rows = [Row('scratch-p16', 'From scratch', cells('scratch-p16', None))]
    for sensor in sensors:
        name = f'{sensor}-p16'
        rows.append(Row(name, title_of(sensor), cells(name, sensor)))
    return Table('matrix', 'Any sensor to any sensor', targets, tuple(rows))


def _scratch(
    patch: int,
    s1: PaperScores | None = None,
    s2: PaperScores | None = None,
    title: str | None = None,
) -> Row:
    name = f'scratch-p{patch}'
    cells = tuple(Cell(name, target, patch=patch) for target in _BOTH)
    return Row(name, title or f'From scratch, patch {patch}', cells, _paper(s1, s2))


def _pretrained(
    name: str,
    title: str,
    pretraining: Pretraining,
    s1: PaperScores | None = None,
    s2: PaperScores | None = None,
) -> Row:
    patch = pretraining.patch
    cells = tuple(
        Cell(
            name,
            target,
            patch=patch,
            pretraining=pretraining,
            scratch=f'scratch-p{patch}:{target}',
            ceiling=None
            if target == 'S2' or patch != 16 or pretraining.bands == 's1'
            else 's1-p16:S1',
        )
        for target in (('S1',) if pretraining.bands == 's1' else _BOTH)
    )
    return Row(name, title, cells, _paper(s1, s2))


def _row(
    name: str,
    title: str,
    model: str | None = None,
    weights: str | None = None,
    trainable: str = 'all',
) -> Row:
    cells = tuple(
        Cell(
            name,
            target,
            model=model,
            weights=weights,
            trainable=trainable,
            scratch=f'scratch-p16:{target}',
        )
        for target in _BOTH
    )
    return Row(name, title, cells)


def _only(row: Row) -> Row:
    """Keep the cells of Sentinel-1."""
    cells = tuple(replace(c, ceiling=None) for c in row.cells if c.target == 'S1')
    return replace(row, cells=cells)


def _paper(s1: PaperScores | None, s2: PaperScores | None) -> dict[Target, PaperScores]:
    given: dict[Target, PaperScores | None] = {'S1': s1, 'S2': s2}
    return {target: scores for target, scores in given.items() if scores is not None}
