"""One datamodule for the original archives of both versions and for the LMDB."""

import shutil
import tarfile

import pandas as pd
import pytest
import torch
from torchgeo.datasets import BigEarthNetV2

from tests.layouts import write_v1, write_v2
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.provenance.overlap import Overlap, judge
from torchgeo_channelmae.provenance.record import Provenance, Training

BANDS = ['B03', 'VV', 'B12', 'B01', 'VH']


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
    """The real sample as an archive of each version, and the keys of its patches."""
    roots, keys = {}, {}
    for version, write in (('v1', write_v1), ('v2', write_v2)):
        roots[version] = tmp_path_factory.mktemp(version)
        keys |= write(roots[version])
    return roots, {name: key.decode() for name, key in keys.items()}


def ready(stage='fit', **options):
    options = {'bands': BANDS, 'batch_size': 8, 'size': 64} | options
    datamodule = BigEarthNetS1S2DataModule(**options)
    datamodule.setup(stage)
    return datamodule


def batch(datamodule):
    samples = [datamodule.val_dataset[row] for row in range(8)]
    return datamodule.finish(datamodule.collate_fn(samples), training=False)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_batches_of_an_archive_are_those_of_the_lmdb(archives, version):
    roots, keys = archives
    found = ready(root=str(roots[version]), format='geotiff', version=version)
    assert found.num_patches == {'train': 23, 'val': 15}
    ours, theirs = batch(found), batch(ready())
    assert [keys[name] for name in ours['patch_id']] == list(theirs['patch_id'])
    assert torch.equal(ours['image'], theirs['image'])
    assert torch.equal(ours['label'], theirs['label'])


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_frequencies_and_tiles_are_those_of_the_lmdb(archives, version):
    root = str(archives[0][version])
    found = ready('test', root=root, format='geotiff')
    expected = ready('test')
    assert torch.equal(found.train_class_frequencies, expected.train_class_frequencies)
    assert found.test_tiles.tolist() == expected.test_tiles.tolist()
    assert found.record.tiles == expected.record.tiles


def test_the_two_versions_know_their_common_patches(archives):
    v1, v2 = (
        ready('test', root=str(archives[0][version]), format='geotiff')
        for version in ('v1', 'v2')
    )
    assert (v1.test_name_spaces, v2.test_name_spaces) == (('v1',), ('v1', 'v2'))
    in_both = torch.isin(v2.test_patches, v1.test_patches)
    assert in_both.tolist() == [[False, True]] * 21


def test_radar_alone_needs_no_optical_archive(archives, tmp_path):
    root = tmp_path / 'radar'
    shutil.copytree(
        archives[0]['v2'], root, ignore=shutil.ignore_patterns('BigEarthNet-S2')
    )
    found = ready(root=str(root), format='geotiff', bands=['VV', 'VH'])
    assert batch(found)['image'].shape == (8, 2, 64, 64)


@pytest.mark.parametrize('kept', ['no', 'some', 'every'])
@pytest.mark.parametrize('trained', ['v1', 'v2'])
def test_versions_are_compared_only_if_every_patch_is_known_in_v1(
    archives, tmp_path, trained, kept
):
    """Train on a version, test on the other; v2 names none, some or all in v1."""
    shutil.copytree(archives[0]['v2'], tmp_path / 'v2')
    table = tmp_path / 'v2' / 'metadata.parquet'
    frame = pd.read_parquet(table)
    if kept == 'no':
        frame = frame.drop(columns='s2v1_name')
    elif kept == 'some':
        frame.loc[frame.index % 2 == 0, 's2v1_name'] = None
    frame.to_parquet(table)
    roots = {'v1': str(archives[0]['v1']), 'v2': str(tmp_path / 'v2')}
    tested = {'v1': 'v2', 'v2': 'v1'}[trained]
    record = ready(root=roots[trained], format='geotiff', version=trained).record
    test = ready('test', root=roots[tested], format='geotiff', version=tested)
    past = Provenance(own=(Training(record, True),))
    verdict = judge(past, record, None, test.test_patches, test.test_name_spaces)
    unknown = 0 if kept == 'every' else 21
    assert verdict.trained == Overlap(0, unknown, 21)


def test_archives_are_unpacked_before_setup_by_one_process(archives, tmp_path):
    for part in ('s1', 's2'):
        folder = f'BigEarthNet-{part.upper()}'
        first, *others = BigEarthNetV2.metadata_locs[part]['files']
        with tarfile.open(tmp_path / first, 'w:gz') as tar:
            tar.add(archives[0]['v2'] / folder, folder)
        for name in others:
            (tmp_path / name).touch()
    shutil.copy(archives[0]['v2'] / 'metadata.parquet', tmp_path)
    options = {'root': str(tmp_path), 'format': 'geotiff', 'version': 'v2'}
    datamodule = BigEarthNetS1S2DataModule(
        bands=BANDS, batch_size=8, download=True, checksum=False, **options
    )
    assert not (tmp_path / 'BigEarthNet-S2').exists()
    datamodule.prepare_data()
    assert (tmp_path / 'BigEarthNet-S2').is_dir()
    datamodule.setup('fit')
    assert datamodule.num_patches == {'train': 23, 'val': 15}


def test_the_other_version_is_refused(archives):
    with pytest.raises(ValueError, match='is v1, but version asks for v2') as caught:
        ready(root=str(archives[0]['v1']), format='geotiff', version='v2')
    assert '\n' not in str(caught.value)


def test_an_empty_folder_is_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match='no unpacked archive') as caught:
        ready(root=str(tmp_path), format='geotiff')
    assert '\n' not in str(caught.value)


def test_damaged_files_are_skipped_and_listed(archives, tmp_path):
    root = tmp_path / 'damaged'
    shutil.copytree(archives[0]['v2'], root)
    datamodule = ready(root=str(root), format='geotiff', on_error='skip')
    names = datamodule.val_dataset.patch_ids
    short, gone = (
        next(root.rglob(f'{name}_{band}.tif'))
        for name, band in ((names[1], 'B12'), (names[4], 'B01'))
    )
    short.write_bytes(short.read_bytes()[:1500])
    gone.unlink()
    loaded = next(iter(datamodule.val_dataloader()))
    assert loaded['index'].tolist() == [0, 2, 3, 5, 6, 7]
    datamodule.on_after_batch_transfer(loaded, 0)
    assert list(datamodule.skipped) == [names[1], names[4]]
    assert str(short) in datamodule.skipped[names[1]]
    assert str(gone) in datamodule.skipped[names[4]]
