"""Pictures of patches and reconstructions show what they say, legibly."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.plotting import (
    composites,
    log_figure,
    plot_patch,
    plot_reconstruction,
)

BANDS = ('B02', 'B03', 'B04', 'B08')
S2 = BigEarthNetLMDB.s2_bands


def assert_legible(figure):
    """Each text and picture lies in the figure and none on another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = [text for text in figure.findobj(Text) if text.get_text().strip()]
    boxes = {text.get_text(): text.get_window_extent() for text in drawn}
    boxes |= {f'panel {i}': a.get_window_extent() for i, a in enumerate(figure.axes)}
    inside = figure.bbox.padded(1)
    for what, box in boxes.items():
        assert inside.contains(box.x0, box.y0), what
        assert inside.contains(box.x1, box.y1), what
    for (what, one), (other, two) in itertools.combinations(boxes.items(), 2):
        assert not one.padded(-0.5).overlaps(two.padded(-0.5)), (what, other)


def images(bands=4, size=16):
    draw = torch.Generator().manual_seed(1)
    image = torch.rand(bands, size, size, generator=draw)
    masked = image.clone()
    masked[:, : size // 2] = torch.nan
    return image, masked, image + 0.1


def test_three_rows_of_a_panel_per_band_and_rgb_if_it_has_its_bands():
    for bands, titles in [(BANDS, ['RGB', *BANDS]), (('B02',), ['B02'])]:
        figure = plot_reconstruction(*images(len(bands)), bands)
        assert len(figure.axes) == 3 * len(titles)
        assert [panel.get_title() for panel in figure.axes[: len(titles)]] == titles
        rows = [panel.get_ylabel() for panel in figure.axes[:: len(titles)]]
        assert rows == ['input', 'masked input', 'reconstruction']


def test_a_guess_is_a_fourth_row_and_no_label_is_cut_off():
    for bands in (('B02',), S2):
        image, masked, made = images(len(bands))
        guess = image.flip(1)
        figure = plot_reconstruction(image, masked, made, bands, 'patch', guess)
        last = figure.axes[-len(figure.axes) // 4 :]
        assert 'linear guess' in last[0].get_ylabel()
        shown = [panel.images[0].get_array() for panel in figure.axes]
        np.testing.assert_array_equal(shown[-1], shown[len(last) - 1][::-1])
        assert_legible(figure)


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


def test_a_figure_goes_to_every_logger_that_takes_figures_and_to_no_other():
    taken = []
    writer = SimpleNamespace(add_figure=lambda name, _, global_step: taken.append(name))
    experiments = [{'experiment': writer}, {'experiment': SimpleNamespace()}, {}]
    loggers = [SimpleNamespace(**each) for each in experiments]
    task = SimpleNamespace(loggers=loggers, global_step=7)
    log_figure(task, 'picture', plot_reconstruction(*images(), BANDS))
    assert taken == ['picture']


# Pictures of patches


def patch(*bands, size=16, seed=1):
    """Band by band other values, in a random order of pixels."""
    draw = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, len(bands) + 1)[:, None, None]
    return 100 * scale + scale * torch.rand(len(bands), size, size, generator=draw)


def by_title(image, bands):
    return dict(composites(image, bands))


@pytest.mark.parametrize(
    ('bands', 'titles'),
    [
        (('VH', *S2, 'VV'), ['true color', 'false color', 'VV, VH, VV - VH']),
        (('red', 'green', 'blue'), ['true color']),
        (('B4', 'B3', 'B2', 'B8'), ['true color', 'false color']),
        (('B11', 'B04'), ['B11']),
    ],
)
def test_a_patch_gives_each_picture_that_its_bands_allow(bands, titles):
    assert [title for title, _ in composites(patch(*bands), bands)] == titles


def test_true_color_is_red_green_and_blue_stretched_alike():
    bands = ('B02', 'B08', 'B04', 'B03')
    image = patch(*bands)
    picture = by_title(image, bands)['true color']
    rgb = image[[2, 3, 0]].numpy()
    low, high = np.percentile(rgb, [2, 98])
    expected = np.clip((rgb - low) / (high - low), 0, 1).transpose(1, 2, 0)
    np.testing.assert_allclose(picture, expected, rtol=1e-5)


def test_other_composites_stretch_each_channel():
    bands = ('VH', 'B03', 'B04', 'B08', 'VV')
    image = patch(*bands)
    vh, green, red, infrared, vv = image.double().numpy()
    expected = {
        'false color': [infrared, red, green],
        'VV, VH, VV - VH': [vv, vh, vv - vh],
    }
    found = by_title(image, bands)
    for title, channels in expected.items():
        for shown, channel in zip(
            np.moveaxis(found[title], -1, 0), channels, strict=True
        ):
            low, high = np.percentile(channel, [2, 98])
            scaled = np.clip((channel - low) / (high - low), 0, 1)
            np.testing.assert_allclose(shown, scaled, atol=1e-4)


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_pixels_without_data_are_left_empty_and_do_not_shift_the_stretch(bad):
    image = patch('VV', 'VH')
    expected = by_title(image, ('VV', 'VH'))['VV, VH, VV - VH'].copy()
    wider = torch.cat([image, torch.full((2, 4, 16), bad)], dim=1)
    wider[0, -4:] = 100  # VV has data there, so only the others are empty
    picture = by_title(wider, ('VV', 'VH'))['VV, VH, VV - VH']
    assert np.isnan(picture[-4:]).all()
    np.testing.assert_allclose(picture[:-4, :, 1:], expected[..., 1:], atol=1e-6)
    assert ((picture[:-4] >= 0) & (picture[:-4] <= 1)).all()


def test_constant_and_empty_bands_are_drawn_without_a_warning(recwarn):
    flat = composites(torch.full((2, 8, 8), 3.0), ('VV', 'VH'))[0][1]
    assert (flat == 0.5).all()
    empty = composites(torch.full((1, 8, 8), torch.nan), ('VV',))[0][1]
    assert np.isnan(empty).all()
    assert not recwarn.list


def texts(figure):
    return ' '.join(text.get_text() for text in figure.findobj(Text))


def test_no_label_and_unknown_labels_differ():
    assert 'Labels: none' in texts(plot_patch(patch('VV'), ['VV'], labels=[]))
    assert 'Labels' not in texts(plot_patch(patch('VV'), ['VV']))
    bare = plot_patch(patch('VV'), ['VV'], labels=['x'], title='S2A', show_titles=False)
    assert texts(bare).split() == ['S2A']


@pytest.mark.parametrize('bands', [('VV',), (*S2, 'VV', 'VH')])
def test_no_text_of_a_plot_runs_into_another_or_off_the_figure(bands):
    names = list(BigEarthNetLMDB.classes[:7])
    figure = plot_patch(
        patch(*bands),
        bands,
        labels=names,
        predictions=names[2:],
        title='S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_37_88',
    )
    assert_legible(figure)
