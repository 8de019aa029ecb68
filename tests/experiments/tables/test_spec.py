"""Tables, sensors and presets are data."""

import re
from pathlib import Path

import pytest

from torchgeo_channelmae import sensors as known
from torchgeo_channelmae.experiments.tables.spec import (
    NAMES,
    bands_of,
    read_preset,
    read_table,
    title_of,
)

CONF = Path(__file__).parents[3] / 'conf'
OVERLAYS = CONF / 'paper'
SHIPPED = sorted(path.stem for path in (OVERLAYS / 'bands').glob('*.yaml'))

#: The paper's tables as printed: rows, then mAP and F1 on Sentinel-1 and Sentinel-2.
PRINTED = {
    '1': """
        68.47 ± 0.13 | 56.82 ± 0.14 | 78.09 ± 0.05 | 67.79 ± 0.07
        71.02 ± 0.13 | 59.18 ± 0.15 | 81.18 ± 0.08 | 70.78 ± 0.11
        70.83 ± 0.14 | 58.93 ± 0.14 | 80.25 ± 0.07 | 69.91 ± 0.10
        70.81 ± 0.14 | 59.53 ± 0.17 | 82.35 ± 0.09 | 72.14 ± 0.09
    """,
    '2': """
        71.02 ± 0.13 | 59.18 ± 0.15 | 81.18 ± 0.08 | 70.78 ± 0.11
        69.92 ± 0.13 | 58.15 ± 0.17 | 78.66 ± 0.08 | 68.01 ± 0.10
        68.42 ± 0.11 | 56.46 ± 0.15 | 74.73 ± 0.10 | 63.61 ± 0.12
        70.25 ± 0.13 | 58.76 ± 0.12 | 71.19 ± 0.11 | 61.24 ± 0.11
    """,
    '3': """
        56.58 ± 0.14 | 55.08 ± 0.14
        57.22 ± 0.15 | 55.67 ± 0.15
        56.81 ± 0.16 | 54.95 ± 0.14
        57.51 ± 0.15 | 55.87 ± 0.15
    """,
}


@pytest.mark.parametrize('name', PRINTED)
def test_the_papers_rows_come_first_with_its_numbers(name):
    table = read_table(name)
    printed = [
        list(map(float, re.findall(r'\d+\.\d+', line)))
        for line in PRINTED[name].strip().splitlines()
    ]
    rows = list(table.rows)[: len(printed)]
    assert table.printed == rows
    for row, numbers in zip(rows, printed, strict=True):
        papers = [table.cells[f'{row}:{target}'].paper for target in table.targets]
        assert [
            x for paper in papers for pair in paper.values() for x in pair
        ] == numbers


@pytest.mark.parametrize('name', NAMES)
def test_a_cell_is_compared_with_one_that_differs_only_in_its_weights(name):
    table = read_table(name)
    for cell in table.cells.values():
        assert bool(cell.scratch) == bool(cell.pretrain or cell.weights)
        if cell.scratch:
            scratch = table.cells[cell.scratch]
            assert scratch.model == cell.model
            assert scratch.pretrain is scratch.weights is None
            for same in ('target', 'patch', 'trainable', 'fraction'):
                assert getattr(scratch, same) == getattr(cell, same)
    for one, other in (table.primary, *table.contrasts):
        assert table.cells[one].target == table.cells[other].target


def test_table_1_has_the_controls_that_the_paper_lacks():
    table = read_table('1')
    controls = [row for row in table.rows if row not in table.printed]
    own = 'scratch-p8 s1-p16 s1-p16-own random-head resnet50 vit-base'
    assert controls == [*own.split(), 'optical-mae', 'radar-mae']
    ceilings = {name: c.ceiling for name, c in table.cells.items() if c.ceiling}
    assert ceilings == {'s2-p16:S1': 's1-p16:S1', 'rgb-p16:S1': 's1-p16:S1'}


def test_label_efficiency_has_scratch_and_pretrained_at_each_share():
    cells = read_table('labels', (0.25, 1.0)).cells.values()
    assert [(c.row, c.fraction, c.scratch) for c in cells][1:3] == [
        ('s2-p16-25', 0.25, 'scratch-p16-25:S1'),
        ('scratch-p16-100', 1.0, None),
    ]


def test_every_sensor_of_the_matrix_is_source_and_target_with_its_own_as_ceiling():
    table = read_table('matrix', sensors=('swir', 's1'))
    rows = ('scratch-p16', 'swir-p16', 's1-p16')
    names = [f'{row}:{target}' for row in rows for target in ('SWIR', 'S1')]
    assert list(table.cells) == names
    ceilings = [table.cells[name].ceiling for name in names]
    assert ceilings == [None, None, None, 's1-p16:S1', 'swir-p16:SWIR', None]


@pytest.mark.parametrize('sensor', SHIPPED)
def test_every_shipped_sensor_has_a_title_and_known_bands(sensor):
    assert all(known.find(band) for band in bands_of(sensor, OVERLAYS))
    assert title_of(sensor.upper()) == title_of(sensor) != sensor


def test_a_sensor_of_ones_own_is_an_overlay_in_small_letters(tmp_path):
    (tmp_path / 'bands').mkdir()
    red = 'data: {init_args: {bands: [B04]}}'
    for name, text in {'red': red, 'RED': red, 'bare': 'data: {}'}.items():
        (tmp_path / 'bands' / f'{name}.yaml').write_text(text)
    assert bands_of('red', tmp_path) == ('B04',)
    for wrong in ('RED', 'bare', 'blue'):
        with pytest.raises(ValueError, match=wrong):
            bands_of(wrong, tmp_path)


@pytest.mark.parametrize('name', ['sample', 'paper', 'copernicus-bench'])
def test_presets_name_files_that_exist(name):
    preset = read_preset(name, CONF)
    files = (*preset.pretrain, *preset.ceiling, *preset.finetune)
    assert all(map(Path.is_file, files))
    assert bool(preset.about) == (name == 'sample')


def test_a_wrong_preset_or_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'big'.*copernicus-bench, paper, sample"):
        read_preset('big', CONF)
    with pytest.raises(ValueError, match='--conf'):
        read_preset('sample', tmp_path)
    (tmp_path / 'tables').mkdir()
    (tmp_path / 'tables' / 'mine.yaml').write_text('seeds: [0]\nabuot: typo\n')
    with pytest.raises(ValueError, match=r'mine.yaml.* about, abuot, assumed'):
        read_preset('mine', tmp_path)
