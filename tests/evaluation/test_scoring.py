"""What a test leaves behind, read again and scored by scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import average_precision_score, f1_score

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets.names import acquisition
from torchgeo_channelmae.evaluation.breakdown import patch_table, per_country
from torchgeo_channelmae.evaluation.metrics import subsets
from torchgeo_channelmae.tasks import CrossModalClassification


def run(folder, task=None, fit=False, **data):
    task = task or CrossModalClassification(model='channelmae_tiny_patch16', size=32)
    trainer = Trainer(
        accelerator='cpu',
        max_epochs=1,
        logger=CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    datamodule = BigEarthNetS1S2DataModule(
        bands=['VV', 'VH'], size=32, batch_size=8, **data
    )
    if fit:
        trainer.fit(task, datamodule)
    scores = trainer.test(task, datamodule, verbose=False)[0]
    return task, scores, trainer.log_dir


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tested')
    task, scores, home = run(folder, fit=True)
    read = {
        name: pd.read_csv(f'{home}/{name}.csv', keep_default_na=False)
        for name in ('predictions', 'patches', 'per_country', 'per_class')
    }
    return task, scores, read


def recomputed(read, groups, seeds):
    """Scores of all subsets by scikit-learn."""
    labels = read['patches'].iloc[:, 3:].to_numpy()
    probabilities = read['predictions'].iloc[:, 1:].to_numpy().astype(np.float32)
    classes = labels.any(0)
    scores = []
    for part in subsets(len(labels), groups, seeds):
        y, p = labels[part.numpy()], probabilities[part.numpy()]
        own = classes & y.any(0)
        scores.append(
            {
                'mAP_micro': average_precision_score(y.ravel(), p.ravel()),
                'mAP_macro': average_precision_score(y[:, own], p[:, own]),
                'F1_micro': f1_score(y, p > 0.5, average='micro', zero_division=0),
                'F1_macro': f1_score(
                    y[:, own], p[:, own] > 0.5, average='macro', zero_division=0
                ),
            }
        )
    return pd.DataFrame(scores)


def test_the_15_subset_scores_come_again_from_the_files(tested):
    _, logged, read = tested
    scores = recomputed(read, 5, (0, 1, 2))
    assert len(scores) == 15
    for name in scores:
        assert logged[f'test_{name}_mean'] == pytest.approx(
            scores[name].mean(), abs=1e-6
        )
        assert logged[f'test_{name}_std'] == pytest.approx(scores[name].std(), abs=1e-6)


def test_groups_change_when_the_datamodule_says_so_at_test_time(tested, tmp_path):
    task, before, read = tested
    _, logged, _ = run(tmp_path, task, test_groups=3, test_group_seeds=[7])
    scores = recomputed(read, 3, (7,))
    assert logged['test_mAP_micro'] == pytest.approx(before['test_mAP_micro'], abs=1e-6)
    for name in scores:
        assert logged[f'test_{name}_mean'] == pytest.approx(
            scores[name].mean(), abs=1e-6
        )
        assert logged[f'test_{name}_std'] != before[f'test_{name}_std']


def test_patches_are_told_with_scene_country_and_labels(tested):
    patches, predictions = tested[2]['patches'], tested[2]['predictions']
    assert patches['patch_id'].tolist() == predictions['patch_id'].tolist()
    assert patches.columns[3:].tolist() == predictions.columns[1:].tolist()
    datamodule = BigEarthNetS1S2DataModule(bands=['VV', 'VH'])
    datamodule.setup('test')
    table = datamodule.test_dataset.table
    assert patches['patch_id'].tolist() == [name.decode() for name in table.s2_names]
    assert patches['country'].tolist() == table.countries.tolist()
    expected = [acquisition(name) for name in patches['patch_id']]
    assert patches['acquisition'].tolist() == expected
    assert (patches.iloc[:, 3:].to_numpy() == table.labels.numpy()).all()


def test_countries_are_scored_each_by_itself(tested):
    read = tested[2]
    countries = read['per_country'].set_index('country')
    assert countries.index.tolist() == sorted(set(read['patches']['country']))
    assert countries['patches'].sum() == 21
    for country, row in countries.iterrows():
        chosen = (read['patches']['country'] == country).to_numpy()
        part = {name: read[name][chosen] for name in ('patches', 'predictions')}
        expected = recomputed(part, 1, (0,)).iloc[0]
        for name in expected.index:
            assert float(row[name]) == pytest.approx(expected[name], abs=1e-6)
        assert 'F1_micro_tuned' in row


def test_what_is_not_known_of_patches_stays_empty():
    labels = torch.tensor([[1, 0], [0, 1]])
    table = patch_table(['a', 'b'], labels, ['x', 'y'])
    assert table.to_dict('list') == {
        'patch_id': ['a', 'b'],
        'acquisition': ['', ''],
        'country': ['', ''],
        'x': [1, 0],
        'y': [0, 1],
    }
    assert len(per_country(labels.float(), labels, None, table['country'])) == 0
