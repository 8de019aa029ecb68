"""Configurations of ``torchgeo fit``, laid over each other and overridden."""

import pytest
import yaml

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.configuration import read_datamodule

OURS = {'class_path': 'torchgeo_channelmae.datamodules.BigEarthNetS1S2DataModule'}


@pytest.fixture
def write(tmp_path):
    def config(data, name='config.yaml', **sections):
        path = tmp_path / name
        path.write_text(yaml.safe_dump({'data': data, 'model': {'a': 1}, **sections}))
        return path

    return config


def test_later_configurations_and_changes_override_earlier_ones(conf, write):
    larger = write({'init_args': {'batch_size': 32}}, 'larger.yaml')
    seeded = write({'init_args': {'bands': ['VV']}}, seed_everything=7)
    datamodule, seed = read_datamodule(
        [conf / 'pretrain.yaml', larger, seeded],
        {'size': 32, 'init_args.root': 'somewhere'},
    )
    assert isinstance(datamodule, BigEarthNetS1S2DataModule)
    assert datamodule.batch_size == 32  # of the second, over the first
    assert datamodule.size_by == 'crop'  # of the first
    assert datamodule.bands == ('VV',)
    assert (datamodule.size, datamodule.root, seed) == (32, 'somewhere', 7)


def test_a_change_reaches_into_what_a_datamodule_builds(write):
    path = write({'class_path': 'EuroSATDataModule', 'dict_kwargs': {'root': 'a'}})
    datamodule, seed = read_datamodule([path], {'dict_kwargs.root': 'b'})
    assert datamodule.kwargs == {'root': 'b'}
    assert seed == 0


@pytest.mark.parametrize(
    ('data', 'named'),
    [
        ({'class_path': 'foo.Bar'}, 'foo.Bar'),
        ({'class_path': 'torch.nn.Linear'}, 'torch.nn.Linear'),
        (OURS | {'init_args': {'rot': 3}}, 'rot'),
        (OURS | {'init_args': {'size': 'big'}}, 'big'),
        (3, 'config.yaml'),
    ],
)
def test_a_mistake_in_a_section_is_named_on_one_line(data, named, write):
    with pytest.raises(ValueError, match=named) as error:
        read_datamodule([write(data)])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', ['data: [1', 'hello', 'model: {}'])
def test_what_is_no_configuration_of_data_is_named(content, tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text(content)
    with pytest.raises(ValueError, match=str(path)):
        read_datamodule([path])
