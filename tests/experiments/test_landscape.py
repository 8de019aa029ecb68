import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_channelmae.datasets.metadata import CLASSES
from torchgeo_channelmae.experiments import fields
from torchgeo_channelmae.experiments.landscape import (
    COUNTRIES,
    FREQUENCIES,
    LABELS_A_PATCH,
    LANDSCAPES,
    draw_classes,
    draw_shares,
    labels_of,
)

seeds = st.integers(0, 2**32)
countries = st.sampled_from(sorted(COUNTRIES))


def share_of(classes):
    return np.array([(classes == column).mean() for column in range(19)])


def alone(*names, seed=0, **others):
    """Draw a map of some classes, of equal shares unless told."""
    shares = np.zeros(19)
    for name in names:
        shares[CLASSES.index(name)] = 1 / len(names)
    for name, share in others.items():
        shares[CLASSES.index(name.replace('_', ' '))] = share
    return draw_classes(np.random.default_rng(seed), shares / shares.sum())


def neighbours_alike(image):
    """Share of horizontal and vertical neighbours with the same value."""
    rows, columns = image[1:] == image[:-1], image[:, 1:] == image[:, :-1]
    return (rows.mean() + columns.mean()) / 2


class TestShares:
    @settings(max_examples=50, deadline=None)
    @given(seed=seeds, country=countries)
    def test_they_are_positive_and_sum_to_one(self, seed, country):
        shares = draw_shares(np.random.default_rng(seed), country)
        assert shares.shape == (19,)
        assert (shares >= 0).all()
        assert shares.sum() == pytest.approx(1)

    @settings(max_examples=50, deadline=None)
    @given(seed=seeds, country=countries)
    def test_each_makes_a_label_or_is_a_trace_too_small_for_one(self, seed, country):
        shares = draw_shares(np.random.default_rng(seed), country)
        assert not ((shares > 0.02) & (shares < 0.04)).any()
        assert ((shares > 0) & (shares <= 0.02)).sum() <= 1

    def test_the_tables_cover_every_class_and_landscape(self):
        assert len(FREQUENCIES) == len(CLASSES) == 19
        assert all(len(chances) == 19 for chances in LANDSCAPES.values())
        assert all(len(often) == len(LANDSCAPES) for often in COUNTRIES.values())
        assert sum(FREQUENCIES) == pytest.approx(LABELS_A_PATCH, abs=0.001)

    def test_a_country_without_a_coast_has_no_sea(self):
        rng = np.random.default_rng(0)
        sea = CLASSES.index('Marine waters')
        coasts = [draw_shares(rng, 'Finland')[sea] > 0.9 for _ in range(300)]
        inland = [draw_shares(rng, 'Serbia')[sea] > 0.9 for _ in range(300)]
        assert sum(coasts) > 20
        assert not any(inland)


class TestMap:
    @settings(max_examples=40, deadline=None)
    @given(seed=seeds, country=countries)
    def test_each_class_gets_its_share(self, seed, country):
        rng = np.random.default_rng(seed)
        shares = draw_shares(rng, country)
        where = draw_classes(rng, shares)
        assert where.classes.shape == (120, 120)
        assert where.classes.max() < 19
        np.testing.assert_allclose(share_of(where.classes), shares, atol=0.001)

    def test_the_same_draws_give_the_same_map(self):
        shares = draw_shares(np.random.default_rng(1), 'Austria')
        first, again = (draw_classes(np.random.default_rng(2), shares) for _ in 'ab')
        other = draw_classes(np.random.default_rng(3), shares)
        assert (first.classes == again.classes).all()
        assert (first.classes != other.classes).any()

    @pytest.mark.parametrize('name', CLASSES)
    def test_a_patch_may_be_of_one_class(self, name):
        where = alone(name)
        assert (where.classes == CLASSES.index(name)).all()

    def test_land_lies_in_pieces_not_in_noise(self):
        for seed in range(5):
            where = alone('Arable land', 'Mixed forest', 'Inland waters', seed=seed)
            assert neighbours_alike(where.classes) > 0.93
            mixed = np.random.default_rng(seed).permutation(where.classes.ravel())
            assert neighbours_alike(mixed.reshape(120, 120)) < 0.4

    def test_farmland_takes_whole_parcels(self):
        where = alone('Arable land', 'Pastures')
        split = [
            parcel
            for parcel in np.unique(where.parcels)
            if len(np.unique(where.classes[where.parcels == parcel])) > 1
        ]
        assert len(split) <= 1

    def test_a_beach_lies_along_the_sea(self):
        where = alone(
            'Arable land', Marine_waters=0.9, **{'Beaches, dunes, sands': 0.1}
        )
        sea = where.classes == CLASSES.index('Marine waters')
        rows, columns = np.nonzero(where.classes == 14)
        near = [
            sea[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7].any()
            for row, column in zip(rows, columns, strict=True)
        ]
        assert np.mean(near) > 0.9

    def test_some_waters_are_rivers_that_cross_the_patch_and_some_are_lakes(self):
        lengths = []
        for seed in range(20):
            where = alone('Mixed forest', Inland_waters=0.06, seed=seed)
            rows, columns = np.nonzero(where.classes == CLASSES.index('Inland waters'))
            lengths.append(max(np.ptp(rows), np.ptp(columns)))
        assert sum(length > 110 for length in lengths) >= 3
        assert sum(length < 90 for length in lengths) >= 3

    def test_a_coast_is_longer_than_a_straight_line(self):
        lengths = []
        for seed in range(8):
            sea = alone('Marine waters', 'Mixed forest', seed=seed).classes == 18
            lengths.append(
                (sea[1:] != sea[:-1]).sum() + (sea[:, 1:] != sea[:, :-1]).sum()
            )
        assert np.median(lengths) > 1.5 * 120

    def test_towns_are_dense_in_the_middle_and_nowhere_else(self):
        where = alone('Urban fabric', 'Arable land')
        town = where.classes == CLASSES.index('Urban fabric')
        assert (where.density[~town] == 0).all()
        assert where.density[town].min() >= 0.3
        assert where.density[town].max() > 0.8
        assert where.density[town].std() > 0.1


class TestLabels:
    def test_a_class_is_a_label_from_three_per_cent(self):
        classes = np.zeros(14_400, dtype=np.uint8)
        classes[:432] = 5  # 3 %
        classes[432 : 432 + 431] = 8  # one pixel less
        labels = labels_of(classes.reshape(120, 120))
        assert np.flatnonzero(labels).tolist() == [0, 5]


class TestFields:
    def test_fractals_are_standardised_and_independent(self):
        first, second = fields.fractal(np.random.default_rng(0), 2, 4, 32, 0.8)
        assert first.mean() == pytest.approx(0, abs=1e-4)
        assert second.std() == pytest.approx(1, abs=1e-4)
        many = fields.fractal(np.random.default_rng(0), 200, 4, 32, 0.8)
        products = (many[::2] * many[1::2]).mean(axis=(1, 2))
        assert abs(products.mean()) < 0.08

    def test_one_knot_spreads_to_a_cubic_spline(self):
        class OneKnot:
            def standard_normal(self, shape, dtype):
                knots = np.zeros(shape, dtype=dtype)
                knots[0, 3, 3] = 1  # of 7 knots for 4 cells: in the middle at 60
                return knots

        field = fields.fractal(OneKnot(), 1, coarse=4, fine=4, hurst=1)[0]
        x = np.abs((np.arange(120) + 0.5) / 30 - 2)
        near = 2 / 3 - x**2 + x**3 / 2
        bump = np.where(x < 1, near, np.maximum(2 - x, 0) ** 3 / 6)
        expected = np.outer(bump, bump)
        expected = (expected - expected.mean()) / expected.std()
        np.testing.assert_allclose(field, expected, atol=1e-4)

    def test_finer_knots_say_the_same_spline(self):
        knots = np.random.default_rng(0).standard_normal((1, 7, 7), dtype=np.float32)
        finer = fields._refine(fields._refine(knots))
        assert finer.shape == (1, 11, 11)
        np.testing.assert_allclose(
            fields._spread(fields._spread(knots, 4), 4),
            fields._spread(fields._spread(finer, 8), 8),
            atol=1e-5,
        )

    def test_parcels_are_about_as_large_as_asked(self):
        sizes = []
        for seed in range(10):
            parcels = fields.parcels(np.random.default_rng(seed), 10, 20, 0.3 * seed)
            inner = np.unique(parcels[30:90, 30:90])
            sizes += [(parcels == parcel).sum() for parcel in inner]
        assert 150 < np.median(sizes) < 250

    def test_parcels_have_straight_sides(self):
        parcels = fields.parcels(np.random.default_rng(0), 20, 30, 0.0)
        for parcel in np.unique(parcels):
            rows, columns = np.nonzero(parcels == parcel)
            box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            assert box == len(rows)  # a rectangle, as strips run along the rows

    def test_borders_are_where_a_neighbour_differs(self):
        numbers = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
        expected = [[False, True, False], [True, True, True], [False, False, False]]
        assert fields.borders(numbers).tolist() == expected

    def test_blurring_is_averaging_twice(self):
        image = np.random.default_rng(0).random((120, 120), dtype=np.float32)
        padded = np.pad(image.astype(float), 4, mode='edge')
        once = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).mean((2, 3))
        twice = np.lib.stride_tricks.sliding_window_view(once, (5, 5)).mean((2, 3))
        blurred = fields.blur(image, 2)
        np.testing.assert_allclose(blurred[4:-4, 4:-4], twice[4:-4, 4:-4], atol=1e-4)

    def test_softening_keeps_the_mean_of_a_point(self):
        point = np.zeros((2, 9, 9), dtype=np.float32)
        point[1, 4, 4] = 1
        soft = fields.soften(point, 0.1)
        kernel = np.outer([0.1, 0.8, 0.1], [0.1, 0.8, 0.1])
        np.testing.assert_allclose(soft[1, 3:6, 3:6], kernel, rtol=1e-5)
        assert soft.sum() == pytest.approx(1, rel=1e-5)

    def test_coarse_bands_are_means_of_squares(self):
        image = np.arange(2 * 12 * 12, dtype=np.float32).reshape(2, 12, 12)
        coarse = fields.block_mean(image, 6)
        assert coarse.shape == (2, 2, 2)
        assert coarse[1, 0, 1] == pytest.approx(image[1, :6, 6:].mean())
