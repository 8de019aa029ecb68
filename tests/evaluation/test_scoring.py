"""What a test leaves behind, read again and scored by scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import average_precision_score, f1_score

from tests.small_tasks import trainer
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets.names import acquisition
from torchgeo_channelmae.evaluation.metrics import subsets
from torchgeo_channelmae.tasks import CrossModalClassification


def data(**kwargs):
    return BigEarthNetS1S2DataModule(
        **{'bands': ['VV', 'VH'], 'size': 32, 'batch_size': 8, **kwargs}
    )


def run(task, folder, **kwargs):
    """Test a task; return what was logged and the tables that it wrote."""
    test = trainer(folder, logger=CSVLogger(folder))
    (scores,) = test.test(task, data(**kwargs), verbose=False)
    names = ('predictions', 'patches', 'per_country', 'per_class')
    home = test.log_dir
    return scores, {
        name: pd.read_csv(f'{home}/{name}.csv', keep_default_na=False) for name in names
    }


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tested')
    task = CrossModalClassification(model='channelmae_tiny_patch16', size=32)
    trainer(folder).fit(task, data())
    return task, *run(task, folder)


def recomputed(read, groups, seeds):
    """Scores of all subsets by scikit-learn."""
    labels = read['patches'].iloc[:, 4:].to_numpy()
    probabilities = read['predictions'].iloc[:, 1:].to_numpy().astype(np.float32)
    classes = labels.any(0)
    scores = []
    for part in subsets(len(labels), groups, seeds):
        y, p = labels[part.numpy()], probabilities[part.numpy()]
        own = classes & y.any(0)
        options = {'average': 'macro', 'zero_division': 0}
        scores.append(
            {
                'mAP_micro': average_precision_score(y.ravel(), p.ravel()),
                'mAP_macro': average_precision_score(y[:, own], p[:, own]),
                'F1_micro': f1_score(y, p > 0.5, average='micro', zero_division=0),
                'F1_macro': f1_score(y[:, own], p[:, own] > 0.5, **options),
            }
        )
    return pd.DataFrame(scores)


def test_subset_scores_can_be_recomputed_from_the_files(tested, tmp_path):
    task, logged, read = tested
    asked = {'test_groups': 3, 'test_group_seeds': [7]}
    other, _ = run(task, tmp_path, **asked)
    for scores, groups, seeds in ((logged, 5, (0, 1, 2)), (other, 3, (7,))):
        expected = recomputed(read, groups, seeds)
        assert len(expected) == groups * len(seeds)
        for name in expected:
            for kind in ('mean', 'std'):
                found = scores[f'test_{name}_{kind}']
                value = getattr(expected[name], kind)()
                assert found == pytest.approx(value, abs=1e-6), name


def test_patches_are_listed_with_scene_country_and_labels(tested):
    patches, predictions = tested[2]['patches'], tested[2]['predictions']
    assert patches.columns[4:].tolist() == predictions.columns[1:].tolist()
    datamodule = data()
    datamodule.setup('test')
    table = datamodule.test_dataset.table
    names = [name.decode() for name in table.s2_names]
    assert names == patches['patch_id'].tolist() == predictions['patch_id'].tolist()
    assert patches['country'].tolist() == table.countries.tolist()
    assert patches['acquisition'].tolist() == [acquisition(name) for name in names]
    assert (patches.iloc[:, 4:].to_numpy() == table.labels.numpy()).all()


def test_every_country_is_scored(tested):
    read = tested[2]
    countries = read['per_country'].set_index('country')
    assert countries.index.tolist() == sorted(set(read['patches']['country']))
    assert countries['patches'].sum() == 21
    for country, row in countries.iterrows():
        chosen = (read['patches']['country'] == country).to_numpy()
        part = {name: read[name][chosen] for name in ('patches', 'predictions')}
        expected = recomputed(part, 1, (0,)).iloc[0].to_dict()
        found = row[list(expected)].astype(float).to_dict()
        assert found == pytest.approx(expected, abs=1e-6)
    assert 'F1_micro_tuned' in countries


def test_two_ranks_write_what_one_does(tested, tmp_path):
    task, one, read = tested
    two = trainer(tmp_path, logger=CSVLogger(tmp_path), devices=2, strategy='ddp_fork')
    two.test(task, data(batch_size=4), verbose=False)
    home = tmp_path / 'lightning_logs' / 'version_0'
    logged = pd.read_csv(home / 'metrics.csv').iloc[-1]
    for name, value in one.items():
        assert logged[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    predictions = pd.read_csv(home / 'predictions.csv')
    assert predictions['patch_id'].tolist() == read['predictions']['patch_id'].tolist()
    difference = predictions.iloc[:, 1:] - read['predictions'].iloc[:, 1:]
    assert difference.abs().max().max() < 1e-6
