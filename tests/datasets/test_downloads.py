"""Downloads of the original archives, from a folder in place of the servers."""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchgeo.datasets import BigEarthNet, BigEarthNetV2

from tests.layouts import write_v1, write_v2
from torchgeo_channelmae.datasets.archives import (
    BigEarthNetV1GeoTIFF,
    BigEarthNetV2GeoTIFF,
)

CLASSES = {'v1': BigEarthNetV1GeoTIFF, 'v2': BigEarthNetV2GeoTIFF}
EITHER = pytest.mark.parametrize('version', ['v1', 'v2'])


@pytest.fixture(scope='module')
def archives(tmp_path_factory) -> Path:
    """Folders v1 and v2, three patches each, of all splits."""
    folder = tmp_path_factory.mktemp('published')
    for version in CLASSES:
        (folder / version).mkdir()
    write_v1(folder / 'v1', rows=(0, 6, 12))
    write_v2(folder / 'v2', rows=(0, 6, 12), maps=True)
    return folder


def pack(root: Path, server: Path, version: str, parts: int) -> dict[str, bytes]:
    """Pack the folders of an archive as they are published; return the files."""
    server.mkdir()
    for path in sorted(root.iterdir()):
        if path.is_file():
            shutil.move(path, server / path.name)
            continue
        stem = {
            'BigEarthNet-v1.0': 'BigEarthNet-S2-v1.0',
            'Reference_Maps': 'Reference_Maps',
        }.get(path.name, path.name)
        packed = server / f'{stem}.tar.gz'
        with tarfile.open(packed, 'w:gz') as tar:
            tar.add(path, path.name)
        shutil.rmtree(path)
        if version == 'v2':  # in parts
            whole, count = packed.read_bytes(), 1 if 'Maps' in stem else parts
            packed.unlink()
            size = -(-len(whole) // count)
            for number in range(count):
                part = whole[number * size : (number + 1) * size]
                (server / f'{stem}.tar.gza{"ab"[number]}').write_bytes(part)
    return {path.name: path.read_bytes() for path in server.iterdir()}


@pytest.fixture
def served(archives, tmp_path, monkeypatch) -> Callable[[str], tuple[Path, Path]]:
    """Publish an archive; returns the server's folder and an empty root."""

    def publish(version: str) -> tuple[Path, Path]:
        server, root = tmp_path / 'server', tmp_path / 'root'
        shutil.copytree(archives / version, root)
        files = pack(root, server, version, parts=2)
        if version == 'v1':
            for name in ('metadata', 'splits_metadata'):
                new = {
                    part: where
                    | {
                        'url': (server / where['filename']).as_uri(),
                        'md5': hashlib.md5(files[where['filename']]).hexdigest(),
                    }
                    for part, where in getattr(BigEarthNet, name).items()
                }
                monkeypatch.setattr(BigEarthNet, name, new)
        else:
            new = {}
            for part, where in BigEarthNetV2.metadata_locs.items():
                new[part] = {'files': {}}
                for name, digest in where['files'].items():
                    # as published: MD5 for two of them, SHA-256 for the others
                    kind = {32: 'md5', 64: 'sha256'}[len(digest)]
                    made = hashlib.new(kind, files[name]).hexdigest()
                    new[part]['files'][name] = made
            kinds = [len(d) for part in new.values() for d in part['files'].values()]
            assert sorted(kinds) == [32, 32, 64, 64, 64, 64]
            monkeypatch.setattr(BigEarthNetV2, 'metadata_locs', new)
            monkeypatch.setattr(BigEarthNetV2, 'url', server.as_uri() + '/{}')
        return server, root

    return publish


@EITHER
def test_a_download_gets_unpacks_and_checks_what_the_bands_need(
    archives, served, version
):
    _, root = served(version)
    images = CLASSES[version](root, 'test', ('VH', 'VV'), download=True)
    whole = CLASSES[version](archives / version, 'test', ('VH', 'VV'))
    assert torch.equal(images[0]['image'], whole[0]['image'])
    assert torch.equal(images[0]['label'], whole[0]['label'])
    got = {path.name for path in root.iterdir()}
    expected = {
        'v1': {
            *('bigearthnet-train.csv', 'bigearthnet-val.csv', 'bigearthnet-test.csv'),
            *('BigEarthNet-S1-v1.0', 'BigEarthNet-S1-v1.0.tar.gz'),
        },
        'v2': {
            *('metadata.parquet', 'BigEarthNet-S1'),
            *('BigEarthNet-S1.tar.gzaa', 'BigEarthNet-S1.tar.gzab'),
        },
    }
    assert got == expected[version]


def test_a_download_of_v2_with_land_cover_gets_the_maps_too(archives, served):
    _, root = served('v2')
    images = BigEarthNetV2GeoTIFF(
        root, 'test', ('B02',), download=True, land_cover=True
    )
    whole = BigEarthNetV2GeoTIFF(archives / 'v2', 'test', ('B02',), land_cover=True)
    assert torch.equal(images[0]['mask'], whole[0]['mask'])
    assert not (root / 'BigEarthNet-S1').exists()


@EITHER
def test_archives_that_were_downloaded_before_are_unpacked(archives, served, version):
    server, root = served(version)
    for path in server.iterdir():
        if 'S1' in path.name or path.suffix in ('.csv', '.parquet'):
            shutil.copy(path, root)
    images = CLASSES[version](root, 'test', ('VV',))
    whole = CLASSES[version](archives / version, 'test', ('VV',))
    assert torch.equal(images[0]['image'], whole[0]['image'])


@EITHER
@pytest.mark.parametrize('checksum', [True, False])
def test_a_damaged_download_is_an_error_and_nothing_is_half_unpacked(
    served, version, checksum
):
    server, root = served(version)
    for path in server.iterdir():
        if 'S1' in path.name:
            content = path.read_bytes()
            (root / path.name).write_bytes(content[: len(content) // 2])
    before = {path.name for path in root.iterdir()}
    said = 'does not have the checksum' if checksum else 'cannot be unpacked'
    with pytest.raises(ValueError, match=said) as caught:
        CLASSES[version](root, 'test', ('VV',), checksum=checksum)
    assert '\n' not in str(caught.value)
    assert {path.name for path in root.iterdir()} == before


@EITHER
def test_a_download_that_differs_from_what_was_published_is_an_error(served, version):
    server, root = served(version)
    for path in server.iterdir():
        if 'S1' in path.name:
            path.write_bytes(path.read_bytes() + b'more')
    with pytest.raises(ValueError, match=r'BigEarthNet-S1.* is corrupted') as caught:
        CLASSES[version](root, 'test', ('VV',), download=True)
    assert '\n' not in str(caught.value)


def test_an_archive_of_something_else_is_an_error(served):
    server, root = served('v1')
    name = BigEarthNet.metadata['s1']['filename']
    shutil.copy(server / BigEarthNet.metadata['s2']['filename'], root / name)
    with pytest.raises(ValueError, match='holds no folder BigEarthNet-S1-v1'):
        BigEarthNetV1GeoTIFF(root, 'test', ('VV',), checksum=False)
    assert [path.name for path in root.iterdir()] == [name]
