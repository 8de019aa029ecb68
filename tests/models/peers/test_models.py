"""Each adapter hands its model what that would be handed by hand."""

import pytest
import torch
from torchgeo.models import dofa_small_patch16_224

from tests import peers
from torchgeo_channelmae.models.peers import Expected, create_peer
from torchgeo_channelmae.models.peers.base import fix, positions_of
from torchgeo_channelmae.models.peers.croma import CROMAPeer
from torchgeo_channelmae.models.peers.transforms import picture
from torchgeo_channelmae.sensors import SENTINEL2_L1C, SENTINEL2_L2A, find, names

OPTICAL = names(SENTINEL2_L2A)


@pytest.fixture
def make(monkeypatch):
    peers.shrink(monkeypatch)

    def make(name, bands, size=None):
        torch.manual_seed(0)
        model = create_peer(name, bands, 3, size or peers.SIDE.get(name, 32))
        return model.eval()

    return make


def images(model, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, len(model.bands), model.size, model.size, generator=draw)


# DOFA


def test_dofa_gets_micrometres_and_its_placeholder_for_radar():
    torch.manual_seed(0)
    model = create_peer('dofa_small_patch16_224', ('VH', 'B04', 'B8A'), 3, 32).eval()
    assert model.wavelengths == pytest.approx([3.75, 0.6646, 0.8647])
    stock = dofa_small_patch16_224(img_size=32, num_classes=3).eval()
    tensors = {k.removeprefix('encoder.'): v for k, v in model.state_dict().items()}
    stock.load_state_dict(
        {k: v for k, v in tensors.items() if not k.startswith('input_scaling')}
    )
    image = images(model)
    with torch.no_grad():
        assert torch.equal(model(image), stock(image, [3.75, 0.6646, 0.8647]))
    assert model.expected() == Expected()  # standardised bands as they come


@pytest.mark.parametrize('name', ['dofa_base_patch16_224', 'copernicusfm_base'])
def test_fixed_positions_tell_cells_apart_from_scratch_and_never_learn(make, name):
    model = make(name, ('VV', 'VH'), size=64)
    positions = dict(model.named_buffers())['encoder.pos_embed']
    assert len(positions[0].unique(dim=0)) == 1 + 4 * 4
    assert 'encoder.pos_embed' not in dict(model.named_parameters())
    image = images(model)
    moved = image.roll((16, 32), dims=(2, 3))
    with torch.no_grad():
        assert not torch.allclose(model(image), model(moved), atol=1e-6)


def test_positions_are_the_sines_and_cosines_of_mae():
    dim, grid = 8, 3
    got = positions_of(dim, grid)[0]
    assert torch.equal(got[0], torch.zeros(dim))
    for cell in range(grid * grid):
        row, column = divmod(cell, grid)
        rates = [1, 10000**-0.5]
        wanted = [
            f(torch.tensor(place * rate))
            for place in (column, row)
            for f in (torch.sin, torch.cos)
            for rate in rates
        ]
        assert torch.allclose(got[1 + cell], torch.stack(wanted), atol=1e-6)


def test_a_fixed_parameter_keeps_its_name_and_value():
    layer = torch.nn.Linear(2, 2)
    value = layer.bias.detach().clone()
    fix(layer, 'bias')
    assert torch.equal(layer.state_dict()['bias'], value)
    assert [name for name, _ in layer.named_parameters()] == ['weight']


# Copernicus-FM


def test_copernicusfm_gets_nanometres_and_the_size_of_a_patch_on_the_ground(make):
    model = make('copernicusfm_base', ('B04', 'VV', 'B09'))
    assert model.wavelengths == [665, 5e7, 940]
    assert model.bandwidths == [30, 1e9, 20]
    assert model.patch_area == pytest.approx(0.16 * 0.16)  # 16 px of 10 m
    assert make('copernicusfm_base', ('B09',)).patch_area == pytest.approx(0.96**2)


def test_copernicusfm_is_called_as_torchgeo_documents(make):
    model = make('copernicusfm_base', ('B04', 'VV'))
    other = peers.copernicusfm.copernicusfm_base(
        img_size=32, patch_size=16, num_classes=0
    ).eval()
    other.load_state_dict(model.encoder.state_dict(), strict=False)
    image = images(model)
    told = torch.tensor([[float('nan')] * 3 + [0.0256]]).repeat(2, 1)
    with torch.no_grad():
        wanted = other(image, told, wavelengths=[665, 5e7], bandwidths=[30, 1e9])
        assert torch.allclose(model.features(image), wanted, atol=1e-6)


def test_copernicusfm_gets_the_scale_of_its_pretraining(make):
    model = make('copernicusfm_base', ('B10', 'VH'))
    expected = model.expected()
    cirrus = next(band for band in SENTINEL2_L1C if band.name == 'B10')
    assert expected.physical
    assert expected.mean == (cirrus.mean, -20.26)
    assert expected.std == (cirrus.std, 5.91)


# Panopticon


def test_panopticon_gets_wavelengths_and_polarisations(make):
    model = make('panopticon_vitb14', ('VV', 'B04', 'VH'))
    assert model.channels == pytest.approx([-1, 664.6, -2])
    image = images(model)
    ids = torch.tensor([[-1.0, 664.6, -2.0]]).repeat(2, 1)
    with torch.no_grad():
        wanted = model.encoder({'imgs': image, 'chn_ids': ids})
        assert torch.equal(model.features(image), wanted)
        assert torch.equal(model.features(image), wanted)  # ids are as before


def test_panopticon_tells_polarisations_apart(make):
    """-1 and -2 differ in what is received, of an orbit that is not known."""
    model = make('panopticon_vitb14', ('VV', 'VH'))
    embed = model.encoder.patch_embed.chnfus.chnemb
    with torch.no_grad():
        for tensor in (embed.embed_transmit, embed.embed_receive, embed.embed_orbit):
            tensor.copy_(torch.randn_like(tensor))
        vv, vh = embed(torch.tensor([[-1.0, -2.0]]))[0]
    third = embed.embed_transmit.shape[1]
    transmit, orbit = embed.embed_transmit[0], embed.embed_orbit.mean(0)
    assert torch.equal(vv[:third], transmit)
    assert torch.equal(vh[:third], transmit)
    assert torch.equal(vv[third : 2 * third], embed.embed_receive[0])
    assert torch.equal(vh[third : 2 * third], embed.embed_receive[1])
    assert torch.equal(vv[2 * third :], orbit)


# CROMA


@pytest.mark.parametrize(
    ('bands', 'modalities', 'feature'),
    [
        (('VH', 'VV'), ('sar',), 'sar_GAP'),
        (OPTICAL[::-1], ('optical',), 'optical_GAP'),
        ((*OPTICAL, 'VH', 'VV'), ('sar', 'optical'), 'joint_GAP'),
    ],
)
def test_croma_gets_the_bands_in_its_order(make, bands, modalities, feature):
    model = make('croma_base', bands)
    assert isinstance(model, CROMAPeer)
    assert model.chosen == modalities
    image = images(model)
    orders = {'sar': ('VV', 'VH'), 'optical': OPTICAL}
    given = {
        f'x_{key}': torch.stack([image[:, bands.index(b)] for b in orders[key]], 1)
        for key in modalities
    }
    with torch.no_grad():
        assert torch.equal(model.features(image), model.encoder(**given)[feature])


def test_croma_gets_two_standard_deviations_as_zero_to_one(make):
    model = make('croma_base', ('VV', 'VH'))
    model.input_scaling.match(None, None, model.expected())
    image = images(model)
    wanted = torch.clip((image - -2) / (2 - -2), 0, 1)
    assert torch.allclose(model.input_scaling(image), wanted)


# Scale-MAE


class Data:
    side, size, size_by = 120, 64, 'resize'

    class record:  # noqa: N801
        sensors = ('Sentinel-2 L1C',)


def test_scalemae_gets_red_green_and_blue_and_metres(make):
    model = make('scalemae_large_patch16', ('B02', 'B04', 'B03'), size=64)
    image = images(model)
    assert torch.equal(image.index_select(1, model.order), image[:, [1, 2, 0]])
    assert model.encoder.res == find('B04').resolution
    model.look_at(Data)
    assert model.encoder.res == pytest.approx(10 * 120 / 64)
    assert model.expected() == picture(('B02', 'B04', 'B03'), 'L1C')


def test_scalemae_places_cells_by_their_distance_in_metres(make):
    model = make('scalemae_large_patch16', ('B04', 'B03', 'B02'), size=64)
    image = images(model)
    with torch.no_grad():
        before = model(image)
        model.encoder.res = 5.0
        assert not torch.allclose(model(image), before)


def test_data_that_tell_nothing_are_10_m_and_l2a(make):
    model = make('scalemae_large_patch16', ('B04', 'B03', 'B02'))
    model.look_at(None)
    assert model.encoder.res == 10
    assert model.expected() == picture(('B04', 'B03', 'B02'), 'L2A')
