"""How images are normalized, from the facts of a datamodule, and compared."""

import pytest

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.provenance.normalization import difference, normalization_of
from torchgeo_channelmae.sensors import find

ONE = {'bands': ['B02', 'VV'], 'mean': [100.0, -10.0], 'std': [50.0, 4.0]}


def test_a_datamodule_has_the_statistics_of_its_bands():
    data = BigEarthNetS1S2DataModule(bands=['VV', 'B8A'], size=32, batch_size=4)
    data.setup('fit')
    found = normalization_of(data.facts)
    assert found['bands'] == ['VV', 'B8A']
    for key in ('mean', 'std'):
        expected = [getattr(find(name), key) for name in found['bands']]
        assert found[key] == pytest.approx(expected, rel=1e-6)
    assert normalization_of(None) is None


@pytest.mark.parametrize(
    ('mean', 'std', 'differs'),
    [(124, 50, False), (126, 50, True), (100, 74, False), (100, 76, True)],
)
def test_half_a_deviation_is_a_notable_difference(mean, std, differs):
    other = {'bands': ['B03', 'B02'], 'mean': [0.0, mean], 'std': [1.0, std]}
    text = f'B02 100 ± 50 there, {mean} ± {std} here'
    assert difference(ONE, other) == (text if differs else '')
    assert difference(ONE, None) == ''


def test_pixels_clipped_elsewhere_are_a_difference():
    assert difference(ONE | {'clip_pixels': None}, ONE) == ''
    clipped = ONE | {'clip_pixels': 5.0}
    assert difference(clipped, ONE) == 'clip_pixels 5.0 there, None here'
