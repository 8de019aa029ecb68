import warnings

import numpy as np
import pytest
import rasterio
from safetensors.numpy import load
from torchgeo_channelmae.datasets.layout import archive_table, band_file, read_band

from torchgeo_channelmae import cli
from torchgeo_channelmae.datasets.bigearthnet import BigEarthNetLMDB
from torchgeo_channelmae.datasets.metadata import read_table, table_note
from torchgeo_channelmae.datasets.records import environment
from torchgeo_channelmae.experiments import synthesize as module
from torchgeo_channelmae.experiments.synthesize import LMDB_NAME, synthesize
from torchgeo_channelmae.experiments.synthetic import World

PAIRS = 9


def records(root):
    """Every record of an LMDB, as bytes."""
    with environment(root / LMDB_NAME).begin() as transaction:
        return {key.decode(): value for key, value in transaction.cursor()}


def files(root):
    """Every GeoTIFF of an archive, as bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob('*.tif')
    }


def interrupt_at(monkeypatch, maker, stop):
    """Let a maker be stopped once at an item, as by Ctrl-C."""
    original = maker.__call__

    def call(self, number):
        if number == stop:
            raise KeyboardInterrupt
        return original(self, number)

    monkeypatch.setattr(maker, '__call__', call)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp('synthetic') / 'earth'
    synthesize(PAIRS, out)
    return out


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    out = tmp_path_factory.mktemp('synthetic') / 'archive'
    synthesize(PAIRS, out, format='geotiff')
    return out


class TestLMDB:
    def test_the_dataset_reads_what_the_world_holds(self, written):
        world = World(0)
        seen = []
        for split in ('train', 'val', 'test'):
            dataset = BigEarthNetLMDB(written, split, bands=('VH', 'B04', 'B08'))
            for sample in dataset:
                seen.append(sample['patch_id'])
                index = [world.sample(i).s2_name for i in range(PAIRS)].index(seen[-1])
                expected = np.stack(
                    [
                        world.radar(index)['VH'],
                        world.optical(index)['B04'],
                        world.optical(index)['B08'],
                    ]
                )
                np.testing.assert_array_equal(sample['image'].numpy(), expected)
                labels = world.sample(index).labels
                assert sample['label'].tolist() == labels.tolist()
        assert len(seen) == len(set(seen)) == PAIRS

    def test_a_record_has_the_native_bands_of_one_sensor(self, written):
        world = World(0)
        found = records(written)
        assert len(found) == 2 * PAIRS
        for index in (0, PAIRS - 1):
            sample = world.sample(index)
            for name, bands in (
                (sample.s2_name, world.optical(index)),
                (sample.s1_name, world.radar(index)),
            ):
                stored = load(found[name])
                assert stored.keys() == bands.keys()
                for band, pixels in bands.items():
                    assert stored[band].dtype == pixels.dtype
                    np.testing.assert_array_equal(stored[band], pixels)

    def test_the_table_has_all_columns_and_says_what_the_data_are(self, written):
        table = read_table(written)
        samples = [World(0).sample(index) for index in range(PAIRS)]
        assert table.s2_names.tolist() == [s.s2_name.encode() for s in samples]
        assert table.s1_names.tolist() == [s.s1_name.encode() for s in samples]
        assert table.v1_names.tolist() == [s.v1_name.encode() for s in samples]
        assert table.split.tolist() == [s.scene.split for s in samples]
        assert table.countries.tolist() == [s.scene.country for s in samples]
        assert table.snow.tolist() == [s.snow for s in samples]
        assert table.cloud.tolist() == [s.cloud for s in samples]
        assert 'no evidence about Earth' in table_note(written)
        assert 'no satellite took' in (written / 'NOTE.md').read_text()

    def test_workers_and_more_pairs_change_no_record(self, written, tmp_path):
        synthesize(PAIRS + 4, tmp_path / 'more', workers=2)
        more = records(tmp_path / 'more')
        for name, record in records(written).items():
            assert more[name] == record

    def test_another_seed_is_another_world(self, written, tmp_path):
        synthesize(2, tmp_path / 'other', seed=1)
        first = records(written)
        other = records(tmp_path / 'other')
        assert not set(first.values()) & set(other.values())

    def test_an_interrupted_run_goes_on(self, written, tmp_path, monkeypatch):
        out = tmp_path / 'earth'
        with monkeypatch.context() as patch:
            interrupt_at(patch, module.RecordMaker, 4)
            with pytest.raises(KeyboardInterrupt):
                synthesize(PAIRS, out)
        assert not out.exists()
        synthesize(PAIRS, out)
        assert records(out) == records(written)
        assert [path.name for path in tmp_path.iterdir()] == ['earth']

    def test_a_run_that_ended_before_the_table_goes_on(
        self, written, tmp_path, monkeypatch
    ):
        out = tmp_path / 'earth'
        with monkeypatch.context() as patch:
            patch.setattr(module, 'write_table', None)
            with pytest.raises(TypeError):
                synthesize(PAIRS, out)
        made = []
        with monkeypatch.context() as patch:
            patch.setattr(module, 'write_lmdb', lambda *_, **__: made.append(1))
            synthesize(PAIRS, out)
        assert not made
        assert records(out) == records(written)
        assert (
            read_table(out).s2_names.tolist() == read_table(written).s2_names.tolist()
        )


class TestNullWorld:
    def test_it_changes_the_radar_alone_and_says_so(self, written, tmp_path):
        out = tmp_path / 'null'
        synthesize(PAIRS, out, null_world=True)
        usual, null = records(written), records(out)
        assert usual.keys() == null.keys()
        for name in usual:
            assert (usual[name] != null[name]) == name.startswith('S1')
        assert read_table(out).labels.equal(read_table(written).labels)
        assert 'Null world' in table_note(out)
        assert 'Null world' not in table_note(written)


class TestGeoTIFF:
    def test_the_archive_holds_what_the_lmdb_holds(self, archive, written):
        table = archive_table(archive, 'v2')
        stored = records(written)
        assert len(table) == PAIRS
        for s2_name, s1_name in zip(table.s2_names, table.s1_names, strict=True):
            for name in (s2_name.decode(), s1_name.decode()):
                for band, pixels in load(stored[name]).items():
                    found = read_band(archive, 'v2', name, band)
                    assert found.dtype == pixels.dtype
                    np.testing.assert_array_equal(found, pixels)
        assert 'no evidence about Earth' in table_note(archive)

    def test_rasterio_reads_pixels_and_their_size(self, archive):
        sample = World(0).sample(0)
        path = band_file(archive, 'v2', sample.s2_name, 'B11')
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            with rasterio.open(path) as file:
                assert file.res == (20, 20)
                assert file.crs is None
                pixels = file.read(1)
        np.testing.assert_array_equal(pixels, World(0).optical(0)['B11'])

    def test_an_interrupted_run_goes_on_and_mends_half_files(
        self, archive, tmp_path, monkeypatch
    ):
        out = tmp_path / 'archive'
        with monkeypatch.context() as patch:
            interrupt_at(patch, module.PairWriter, 5)
            with pytest.raises(KeyboardInterrupt):
                synthesize(PAIRS, out, format='geotiff')
        partial = tmp_path / 'archive.partial'
        half, *others = sorted(partial.rglob('*.tif'))
        half.write_bytes(half.read_bytes()[:1000])
        untouched = {path.name: path.stat().st_mtime_ns for path in others}
        synthesize(PAIRS, out, format='geotiff')
        assert files(out) == files(archive)
        again = [
            path.name
            for path in out.rglob('*.tif')
            if path.name in untouched
            and path.stat().st_mtime_ns != untouched[path.name]
            and path.parent.name != half.parent.name
        ]
        assert not again

    def test_a_full_disk_is_one_sentence(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr('pathlib.Path.write_bytes', fail)
        with pytest.raises(OSError, match=r'Pair 0 .*No space left.*kept\.$') as error:
            synthesize(2, tmp_path / 'archive', format='geotiff')
        assert '\n' not in str(error.value)
        assert not (tmp_path / 'archive').exists()

    def test_too_little_room_is_found_before_anything_is_drawn(
        self, tmp_path, monkeypatch
    ):
        usage = type('Usage', (), {'free': 500_000})
        monkeypatch.setattr('shutil.disk_usage', lambda _: usage)
        for kind in ('geotiff', 'lmdb'):
            with pytest.raises(OSError, match='make room'):
                synthesize(3, tmp_path / kind, format=kind)


class TestBadInput:
    @pytest.mark.parametrize(
        ('options', 'complaint'),
        [
            ({'n': 0}, r'n is 0: use 1 or more pairs\.'),
            ({'n': 2, 'workers': -1}, r'workers is -1: use 0 or more\.'),
            ({'n': 2, 'format': 'zarr'}, r"format is 'zarr': use lmdb or geotiff\."),
        ],
    )
    def test_a_wrong_option_is_refused_before_anything_is_written(
        self, tmp_path, options, complaint
    ):
        with pytest.raises(ValueError, match=complaint):
            synthesize(out=tmp_path / 'earth', **options)
        assert not [*tmp_path.iterdir()]

    def test_nothing_is_overwritten(self, written):
        before = (written / 'NOTE.md').read_text()
        with pytest.raises(FileExistsError, match='nothing is overwritten'):
            synthesize(1, written)
        assert (written / 'NOTE.md').read_text() == before

    def test_what_was_begun_is_not_finished_with_other_options(
        self, tmp_path, monkeypatch
    ):
        out = tmp_path / 'earth'
        with monkeypatch.context() as patch:
            interrupt_at(patch, module.RecordMaker, 3)
            with pytest.raises(KeyboardInterrupt):
                synthesize(PAIRS, out)
        for other in ({'seed': 1}, {'null_world': True}, {'format': 'geotiff'}):
            with pytest.raises(ValueError, match='begun with other options'):
                synthesize(PAIRS, out, **other)

    def test_a_folder_that_cannot_be_made_is_one_sentence(self, tmp_path):
        (tmp_path / 'file').write_text('')
        with pytest.raises(OSError, match='Nothing can be written') as error:
            synthesize(1, tmp_path / 'file' / 'earth')
        assert '\n' not in str(error.value)


class TestCommand:
    def test_it_writes_what_the_function_writes(self, written, tmp_path, capsys):
        out = tmp_path / 'earth'
        code = cli.main(['synthesize', '--n', str(PAIRS), '--out', str(out)])
        assert code == 0
        assert records(out) == records(written)
        assert 'no evidence about Earth' in capsys.readouterr().out

    def test_a_mistake_is_one_line(self, tmp_path, capsys):
        code = cli.main(['synthesize', '--n', '0', '--out', str(tmp_path / 'earth')])
        assert code == 1
        assert capsys.readouterr().err.count('\n') == 1
