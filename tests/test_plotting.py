"""A picture of a reconstruction has a row for each state and a panel for each band."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from torchgeo_channelmae.plotting import log_figure, plot_reconstruction

BANDS = ('B02', 'B03', 'B04', 'B08')


def images(bands=4, size=16):
    draw = torch.Generator().manual_seed(1)
    image = torch.rand(bands, size, size, generator=draw)
    masked = image.clone()
    masked[:, : size // 2] = torch.nan
    return image, masked, image + 0.1


@pytest.mark.parametrize(
    ('bands', 'titles'),
    [(BANDS, ['RGB', *BANDS]), (('VV', 'VH'), ['VV', 'VH']), (('B02',), ['B02'])],
)
def test_three_rows_of_a_panel_a_band_and_rgb_where_its_bands_are_there(bands, titles):
    figure = plot_reconstruction(*images(len(bands)), bands)
    assert len(figure.axes) == 3 * len(titles)
    assert [panel.get_title() for panel in figure.axes[: len(titles)]] == titles
    rows = [panel.get_ylabel() for panel in figure.axes[:: len(titles)]]
    assert rows == ['input', 'masked input', 'reconstruction']


def test_rgb_shows_red_green_and_blue_by_name_whatever_their_order():
    image = torch.zeros(3, 8, 8)
    image[0] = torch.linspace(0, 1, 64).view(8, 8)  # B03, so green
    figure = plot_reconstruction(image, image, image, ('B03', 'B02', 'B04'))
    shown = figure.axes[0].images[0].get_array()
    assert shown[..., 1].max() == 1
    assert shown[..., 0].max() == shown[..., 2].max() == 0


def test_a_band_has_the_stretch_of_its_input_in_all_three_panels():
    image, masked, _ = images(1)
    figure = plot_reconstruction(image, masked, image + 0.5, ('VV',))
    before, _, after = (panel.images[0].get_array() for panel in figure.axes)
    low, high = np.percentile(image.numpy(), [2, 98])
    np.testing.assert_allclose(after - before, 0.5 / (high - low), rtol=1e-4)


def test_a_constant_band_is_drawn(tmp_path):
    image = torch.full((2, 16, 16), 3.0)
    figure = plot_reconstruction(image, image, image, ('VV', 'VH'), title='constant')
    figure.savefig(tmp_path / 'constant.png')
    assert (tmp_path / 'constant.png').stat().st_size > 0
    assert all(np.isfinite(panel.images[0].get_array()).all() for panel in figure.axes)


def test_a_wholly_hidden_band_is_drawn(tmp_path):
    image, _, guess = images(4)
    figure = plot_reconstruction(image, torch.full_like(image, torch.nan), guess, BANDS)
    figure.savefig(tmp_path / 'hidden.png')
    assert (tmp_path / 'hidden.png').stat().st_size > 0


def test_a_figure_goes_to_every_logger_that_takes_figures_and_to_no_other():
    taken = []
    experiment = SimpleNamespace(
        add_figure=lambda name, figure, global_step: taken.append((name, global_step))
    )
    loggers = [
        SimpleNamespace(experiment=experiment),
        SimpleNamespace(experiment=SimpleNamespace()),
        SimpleNamespace(),
    ]
    task = SimpleNamespace(loggers=loggers, global_step=7)
    log_figure(task, 'picture', plot_reconstruction(*images(), BANDS))
    assert taken == [('picture', 7)]
