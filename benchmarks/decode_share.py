"""What decoding a share of the grid cells costs in quality, and saves in time.

    uv run channelmae synthesize --n 2000 --out SYNTHETIC
    uv run python -m benchmarks.decode_share --root SYNTHETIC

A small encoder (ViT-Ti, patch 8) is pretrained on Sentinel-2 patches for as many steps
with each share. Validation decodes all cells, so its losses compare; a linear probe on
the labels tells what the features are worth. Any folder in BigEarthNet's layout will
do; on a synthetic Earth the figures tell of the machinery alone.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import seed_everything
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchgeo_channelmae.callbacks.register import register_variant
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.sensors import SENTINEL2_L2A, names
from torchgeo_channelmae.tasks import ChannelMAE

from .trainer import make_trainer

BANDS = names(SENTINEL2_L2A)
MODEL = 'channelmae_shallow_patch8'


def pretrain(arguments: argparse.Namespace, share: float, seed: int) -> dict[str, Any]:
    """Pretrain and return the losses, the score of the probe and the time of a step."""
    seed_everything(seed, verbose=False)
    task = ChannelMAE(
        MODEL,
        bands=list(BANDS),
        size=arguments.size,
        embed_std=0.5,
        decode_share=share,
        decoder_dim=128,
        decoder_depth=2,
        decoder_num_heads=4,
        base_lr=8e-3,
        warmup_epochs=1,
        plot_every_n_epochs=0,
    )
    data = BigEarthNetS1S2DataModule(
        arguments.root, bands=list(BANDS), size=arguments.size, batch_size=32
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            max_epochs=arguments.epochs,
            check_val_every_n_epoch=arguments.epochs,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        start = time.perf_counter()
        trainer.fit(task, data)
        seconds = time.perf_counter() - start
    metrics = trainer.callback_metrics
    return {
        'val_loss': float(metrics['val_loss']),
        'val_spectral_loss': float(metrics['val_spectral_loss']),
        'val_trivial_loss': float(metrics['val_trivial_loss']),
        'probe_mAP_micro': probe(task.eval(), data),
        'seconds': seconds / trainer.global_step,
    }


@torch.inference_mode()
def probe(task: ChannelMAE, data: BigEarthNetS1S2DataModule) -> float:
    """Micro mAP of a linear probe, in percent: fitted on the validation set."""
    parts = {}
    for stage, loader in (('fit', 'val_dataloader'), ('test', 'test_dataloader')):
        data.setup(stage)
        batches = [data.finish(b, training=False) for b in getattr(data, loader)()]
        parts[stage] = (
            torch.cat([task.model(batch['image']) for batch in batches]).numpy(),
            torch.cat([batch['label'] for batch in batches]).numpy(),
        )
    (features, labels), (others, expected) = parts['fit'], parts['test']
    known = (labels.min(0) < labels.max(0)) & (expected.max(0) > 0)
    classifier = make_pipeline(
        StandardScaler(),
        MultiOutputClassifier(LogisticRegression(C=0.1, max_iter=500)),
    ).fit(features, labels[:, known])
    found = np.stack([part[:, 1] for part in classifier.predict_proba(others)], axis=1)
    score = average_precision_score(expected[:, known], found, average='micro')
    return 100 * float(score)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--root', type=Path, required=True, help='folder of the data')
    parser.add_argument('--shares', type=float, nargs='+', default=[1.0, 0.5, 0.25])
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--depth', type=int, default=4, help='blocks of ViT-Ti')
    parser.add_argument('--size', type=int, default=32, help='px')
    parser.add_argument('--json', type=Path, help='file for the figures')
    arguments = parser.parse_args()
    register_variant(MODEL, 'channelmae_tiny_patch8', depth=arguments.depth)
    found = {
        share: [pretrain(arguments, share, seed) for seed in range(arguments.seeds)]
        for share in arguments.shares
    }
    columns = list(found[arguments.shares[0]][0])
    print('\nMean and standard deviation over seeds')
    print(f'| decode_share | {" | ".join(columns)} |')
    print(f'| -- |{" --: |" * len(columns)}')
    for share, runs in found.items():
        cells = []
        for column in columns:
            values = [run[column] for run in runs]
            cells.append(f'{np.mean(values):.4g} ({np.std(values):.2g})')
        print(f'| {share} | {" | ".join(cells)} |')
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == '__main__':
    main()
