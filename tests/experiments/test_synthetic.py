import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchgeo_channelmae import sensors
from torchgeo_channelmae.datasets.metadata import CLASSES
from torchgeo_channelmae.datasets.names import acquisition, tile, version_of
from torchgeo_channelmae.experiments import covers
from torchgeo_channelmae.experiments.ground import Land, draw_land
from torchgeo_channelmae.experiments.landscape import FREQUENCIES, draw_classes
from torchgeo_channelmae.experiments.observe import (
    LOOKS,
    observe_optical,
    observe_radar,
    speckle,
)
from torchgeo_channelmae.experiments.scenes import SCENES
from torchgeo_channelmae.experiments.synthetic import World

BANDS = {band.name: band for band in (*sensors.SENTINEL2_L2A, *sensors.SENTINEL1_GRD)}
WORLD = World(seed=0)


def pixels_of(world, index):
    return {**world.optical(index), **world.radar(index)}


def flat_land(cover):
    """A land of one cover and one field, without slopes."""
    same = np.full((120, 120), covers.NUMBER[cover])
    return Land(
        classes=same.astype(np.uint8),
        covers=same,
        units=np.zeros((120, 120), dtype=np.int64),
        slopes=np.zeros((2, 120, 120), dtype=np.float32),
    )


def rng(seed):
    return np.random.default_rng(seed)


def calm():
    """A scene for looking at flat land."""
    return WORLD.scene(0)


@pytest.fixture(scope='module')
def described():
    """What is known of 1,600 samples without drawing pixels."""
    return [WORLD.sample(index) for index in range(1600)]


@pytest.fixture(scope='module')
def drawn():
    """The pixels of 96 samples, three of each scene."""
    return [pixels_of(WORLD, index) for index in range(96)]


class TestDeterminism:
    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**31), index=st.integers(0, 10**7))
    def test_a_sample_depends_on_seed_and_index_alone(self, seed, index):
        first = pixels_of(World(seed), index)
        pixels_of(World(seed), index + 1)  # other draws in between
        pixels_of(World(seed + 1), index)
        again = pixels_of(World(seed), index)
        for band, pixels in first.items():
            np.testing.assert_array_equal(pixels, again[band])

    def test_seeds_and_indices_give_other_samples(self):
        one, other_index, other_seed = (
            pixels_of(*where) for where in ((WORLD, 5), (WORLD, 37), (World(1), 5))
        )
        for band in ('B04', 'VV'):
            assert (one[band] != other_index[band]).any()
            assert (one[band] != other_seed[band]).any()


class TestNames:
    def test_they_are_names_of_version_2_on_tiles_that_earth_lacks(self, described):
        for sample in described[:64]:
            assert version_of(sample.s2_name) == 'v2'
            assert version_of(sample.v1_name) == 'v1'
            place = tile(sample.s1_name)
            assert f'_R000_T{place}_' in sample.s2_name
            assert int(place[:2]) > 60
            assert place.endswith('SYN')

    def test_no_two_samples_share_one(self, described):
        for kind in ('s2_name', 's1_name', 'v1_name'):
            names = {getattr(sample, kind) for sample in described}
            assert len(names) == len(described)

    def test_a_pair_has_the_same_row_and_column(self, described):
        for sample in described[:200]:
            assert sample.s2_name.split('_')[-2:] == sample.s1_name.split('_')[-2:]


class TestScenes:
    def test_splits_share_no_scene_and_halve_it_to_the_training(self, described):
        splits = {}
        for sample in described:
            splits.setdefault(acquisition(sample.s2_name), set()).add(
                sample.scene.split
            )
        assert len(splits) == SCENES
        found = [*map(tuple, splits.values())]
        assert found.count(('train',)) == SCENES / 2
        assert found.count(('val',)) == found.count(('test',)) == SCENES / 4

    def test_four_samples_already_have_all_splits(self):
        splits = [WORLD.scene(index).split for index in range(4)]
        assert sorted(splits) == ['test', 'train', 'train', 'val']

    def test_each_split_sees_the_year_and_several_countries(self):
        scenes = [WORLD.scene(index) for index in range(SCENES)]
        for split in ('train', 'val', 'test'):
            chosen = [scene for scene in scenes if scene.split == split]
            days = sorted(scene.day for scene in chosen)
            assert days[0] < 140
            assert days[-1] > 230
            assert len({scene.country for scene in chosen}) >= 5

    def test_the_days_of_bigearthnet_are_kept(self):
        times = [WORLD.scene(index).time for index in range(SCENES)]
        assert min(times).strftime('%Y-%m') >= '2017-06'
        assert max(times).strftime('%Y-%m') <= '2018-05'


class TestLabels:
    def test_their_frequencies_are_those_of_the_real_table(self, described):
        found = np.mean([sample.labels for sample in described], axis=0)
        # of 1,600 draws: three standard errors of a half are 3.75 points
        np.testing.assert_allclose(found, FREQUENCIES, atol=0.04)

    def test_their_number_is_that_of_the_real_table(self, described):
        counts = [sample.labels.sum() for sample in described]
        assert np.mean(counts) == pytest.approx(2.95, abs=0.15)
        assert min(counts) >= 1

    def test_they_are_the_classes_with_three_per_cent_of_the_land(self):
        for index in range(20):
            classes = WORLD.land(index).classes
            shares = [(classes == column).mean() for column in range(19)]
            expected = [int(share >= 0.03) for share in shares]
            assert WORLD.sample(index).labels.tolist() == expected

    def test_some_patches_have_clouds_and_some_snow_but_not_in_summer(self, described):
        assert 0.01 < np.mean([sample.cloud for sample in described]) < 0.06
        snowy = [sample.scene.day for sample in described if sample.snow]
        assert snowy
        assert all(day < 90 or day > 310 for day in snowy)


class TestPixels:
    def test_bands_have_their_own_size_and_type(self, drawn):
        for name, pixels in drawn[0].items():
            side = round(1200 / BANDS[name].resolution)
            assert pixels.shape == (side, side)
            assert pixels.dtype == (np.float32 if name in ('VV', 'VH') else np.uint16)
        assert tuple(drawn[0]) == tuple(BANDS)

    def test_none_is_without_data(self, drawn):
        for sample in drawn:
            for name, pixels in sample.items():
                assert np.isfinite(pixels).all()
                assert name in ('VV', 'VH') or pixels.min() > 0

    @pytest.mark.parametrize('name', [*BANDS])
    def test_means_and_spreads_are_near_those_of_bigearthnet(self, drawn, name):
        values = np.concatenate([sample[name].ravel() for sample in drawn]).astype(
            float
        )
        band = BANDS[name]
        room = 1.5 if band.sensor.startswith('Sentinel-1') else 0.3 * band.mean
        assert values.mean() == pytest.approx(band.mean, abs=room)
        # rare clouds make much of the spread of visible bands
        assert 0.4 * band.std < values.std() < 1.5 * band.std

    def test_coarse_bands_show_the_same_scene_averaged(self, drawn):
        for sample in drawn[:20]:
            fine = sample['B08'].astype(float)
            if fine.std() < 200:  # open water
                continue
            averaged = fine.reshape(60, 2, 60, 2).mean(axis=(1, 3))
            like = np.corrcoef(averaged.ravel(), sample['B8A'].ravel())[0, 1]
            turned = np.corrcoef(averaged.T.ravel(), sample['B8A'].ravel())[0, 1]
            assert like > 0.95 > turned

    def test_leaves_are_green_in_summer_and_brown_in_winter(self):
        def greenness(day):
            blue, red, near = covers.spectra(day)[0, [1, 3, 7]]
            assert 0 < blue < red < near < 1
            return (near - red) / (near + red)

        assert greenness(180) > 0.8 > 0.5 > greenness(70)

    def test_slopes_towards_the_sun_are_brighter(self):
        land = flat_land('dry grass')
        southern = np.zeros((2, 120, 120), dtype=np.float32)
        southern[0, :60] = -0.2  # falls to the south
        southern[0, 60:] = 0.2
        seen = observe_optical(
            rng(0), dataclasses.replace(land, slopes=southern), calm()
        )['B04'].astype(float)
        assert seen[:60].mean() > 1.2 * seen[60:].mean()

    def test_slopes_towards_the_radar_are_brighter(self):
        land = flat_land('dry grass')
        western = np.zeros((2, 120, 120), dtype=np.float32)
        western[1, :, :60] = 0.2  # rises to the east, so it faces the west
        western[1, :, 60:] = -0.2
        for ascending, brighter in ((True, 1), (False, -1)):  # ascending looks east
            scene = dataclasses.replace(calm(), ascending=ascending)
            land = dataclasses.replace(land, slopes=western)
            seen = observe_radar(rng(0), land, scene)['VV']
            assert brighter * (seen[:, :60].mean() - seen[:, 60:].mean()) > 2

    def test_clouds_hide_land_from_the_optical_sensor_alone(self):
        land = flat_land('conifers')
        clear, cloudy = (
            observe_optical(rng(0), land, calm(), cloud=cloud)
            for cloud in (False, True)
        )
        assert cloudy['B02'].max() > 10 * clear['B02'].mean()
        assert clear['B02'].max() < 3 * clear['B02'].mean()

    def test_snow_is_bright_but_dark_in_the_short_wave_infrared(self):
        land = flat_land('bare soil')
        bare, snowy = (
            observe_optical(rng(0), land, calm(), snow=snow) for snow in (False, True)
        )
        assert snowy['B03'].mean() > 2 * bare['B03'].mean()
        assert snowy['B11'].mean() < bare['B11'].mean()


class TestRadar:
    def test_speckle_has_the_looks_of_sentinel_1(self):
        noise = speckle(rng(0), 40)
        assert noise.mean() == pytest.approx(1, abs=0.005)
        assert 1 / noise.var() == pytest.approx(LOOKS, rel=0.03)
        third = ((noise - 1) ** 3).mean() / noise.std() ** 3
        assert third == pytest.approx(2 / np.sqrt(LOOKS), rel=0.2)  # as gamma has

    def test_neighbours_share_some_speckle_and_channels_none(self):
        noise = speckle(rng(0), 40) - 1
        beside = (noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.var()
        apart = (noise[:, :, 3:] * noise[:, :, :-3]).mean() / noise.var()
        assert 0.25 < beside < 0.55
        assert abs(apart) < 0.01
        assert abs((noise[::2] * noise[1::2]).mean() / noise.var()) < 0.01

    def test_decibels_over_even_land_scatter_as_speckle_does(self):
        seen = observe_radar(rng(0), flat_land('conifers'), calm())['VV']
        power = 10 ** (seen.astype(float) / 10)
        power /= power.mean(axis=0)  # the brightness across the swath
        assert power.mean() ** 2 / power.var() == pytest.approx(LOOKS, rel=0.1)

    def test_towns_are_bright_and_waters_dark(self):
        means = {
            cover: np.mean(
                [
                    observe_radar(rng(seed), flat_land(cover), calm())['VV'].mean()
                    for seed in range(6)
                ]
            )
            for cover in ('tiled roof', 'conifers', 'fresh water')
        }
        assert means['tiled roof'] > means['conifers'] + 2
        assert means['conifers'] > means['fresh water'] + 5


class TestIndependence:
    def test_the_two_images_of_even_land_share_nothing(self):
        land = flat_land('broad-leaved trees')
        pairs = [
            (
                observe_optical(rng(2 * seed), land, calm())['B08'],
                observe_radar(rng(2 * seed + 1), land, calm())['VV'],
            )
            for seed in range(60)
        ]
        optical, radar = (
            np.array(images, dtype=float) for images in zip(*pairs, strict=True)
        )
        within = [
            np.corrcoef(one.ravel(), other.ravel())[0, 1]
            for one, other in zip(optical, radar, strict=True)
        ]
        assert abs(np.mean(within)) < 0.005
        between = np.corrcoef(optical.mean((1, 2)), radar.mean((1, 2)))[0, 1]
        assert abs(between) < 0.35  # 2.7 standard errors of 60 pairs

    def test_a_world_draws_them_from_different_generators(self, monkeypatch):
        states = []

        def remember(generator, *_):
            states.append(generator.bit_generator.state['state']['state'])
            return {}

        module = 'torchgeo_channelmae.experiments.synthetic'
        monkeypatch.setattr(f'{module}.observe_optical', remember)
        monkeypatch.setattr(f'{module}.observe_radar', remember)
        for index in range(20):
            pixels_of(WORLD, index)
        assert len(set(states)) == 40

    def test_fields_differ_from_each_other_to_both_sensors(self):
        shares = np.eye(19)[CLASSES.index('Arable land')]
        where = draw_classes(rng(0), shares)
        land = draw_land(rng(1), where, day=180)
        seen = {
            **observe_optical(rng(2), land, calm()),
            **observe_radar(rng(3), land, calm()),
        }
        fields = np.unique(land.units, return_inverse=True)[1].ravel()
        for band, share in (('B08', 0.5), ('VV', 0.15)):  # the rest is speckle
            means = np.bincount(fields, seen[band].ravel()) / np.bincount(fields)
            between = ((means[fields] - seen[band].mean()) ** 2).mean()
            assert between > share * seen[band].var()


class TestNullWorld:
    NULL = World(seed=0, null=True)

    def test_each_radar_goes_to_one_other_sample_of_the_split(self):
        sources = [self.NULL.radar_source(index) for index in range(2048)]
        assert sorted(sources) == list(range(2048))
        for index, source in enumerate(sources):
            assert source != index
            assert WORLD.scene(source).split == WORLD.scene(index).split

    def test_only_the_radar_is_another(self):
        for index in (0, 7, 1500):
            source = self.NULL.radar_source(index)
            np.testing.assert_array_equal(
                self.NULL.radar(index)['VV'], WORLD.radar(source)['VV']
            )
            np.testing.assert_array_equal(
                self.NULL.optical(index)['B05'], WORLD.optical(index)['B05']
            )
            null, usual = self.NULL.sample(index), WORLD.sample(index)
            assert null.s1_name == usual.s1_name
            assert (null.labels == usual.labels).all()

    def test_radar_tells_labels_in_the_world_and_nothing_in_the_null_world(
        self, described
    ):
        count = 512
        sources = [self.NULL.radar_source(index) for index in range(count)]
        seen = {}  # the null world's radar is the world's, swapped: see above
        for index in {*range(count), *sources}:
            bands = WORLD.radar(index).values()
            seen[index] = [value for b in bands for value in (b.mean(), b.std())]
        usual = np.array([seen[index] for index in range(count)])
        swapped = np.array([seen[index] for index in sources])
        labels = np.array([sample.labels for sample in described[:count]])
        split = np.array([sample.scene.split for sample in described[:count]])
        assert gain_over_chance(usual, labels, split) > 0.1
        assert abs(gain_over_chance(swapped, labels, split)) < 0.04


def gain_over_chance(features, labels, split):
    """Macro mAP of linear classifiers less the frequency, of the common classes."""
    train, test = split == 'train', split == 'test'
    gains = []
    for column in np.flatnonzero(labels[test].sum(0) >= 15):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(features[train], labels[train, column])
        scores = model.predict_proba(features[test])[:, 1]
        truth = labels[test, column]
        gains.append(average_precision_score(truth, scores) - truth.mean())
    return np.mean(gains)


class TestCovers:
    @pytest.mark.parametrize('day', [1, 80, 120, 208, 285, 365])
    def test_shares_of_crops_sum_to_one(self, day):
        shares = covers.crops(day)
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) >= 0

    def test_every_class_has_covers(self):
        mixed = covers.mixtures(150)
        assert sorted(mixed) == list(range(19))
        for numbers, sums in mixed.values():
            assert len(numbers) == len(sums)
            assert (np.diff(sums) > 0).all()

    def test_farmland_has_more_ripe_crops_in_summer(self):
        ripe = covers.NUMBER['ripe crop']
        arable = np.eye(19)[CLASSES.index('Arable land')]
        spring, summer = (
            np.mean(
                [
                    draw_land(rng(seed), draw_classes(rng(seed), arable), day).covers
                    == ripe
                    for seed in range(5)
                ]
            )
            for day in (110, 208)
        )
        assert summer > 0.3 > 0.1 > spring

    def test_reflectance_is_physical(self):
        for day in (60, 180, 300):
            spectra = covers.spectra(day)
            assert spectra.shape == (len(covers.COVERS), 12)
            assert spectra.min() > 0
            assert spectra.max() < 0.6
