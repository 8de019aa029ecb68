"""What fine-tuning on a random subset of the bands each step costs and brings.

    uv run channelmae synthesize --n 2000 --out SYNTHETIC
    uv run python -m benchmarks.band_sampling --root SYNTHETIC

A small encoder learns the labels of Sentinel-2 patches from scratch, with SampleBands
and without, for as many epochs; each is tested on all 12 bands and on some of them.
Steps of both kinds are timed alternately in one process. Any folder in BigEarthNet's
layout will do; on a synthetic Earth the scores tell of the machinery alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, seed_everything
from sklearn.metrics import average_precision_score

from torchgeo_channelmae.callbacks.register import register_variant
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.sensors import SENTINEL2_L2A, names
from torchgeo_channelmae.tasks import CrossModalClassification
from torchgeo_channelmae.transforms import SampleBands
from torchgeo_channelmae.transforms.band_sampling import sample_bands

from .trainer import make_trainer

BANDS = names(SENTINEL2_L2A)
SUBSETS = {
    'all 12': BANDS,
    'all but B08, B8A': tuple(band for band in BANDS if band not in ('B08', 'B8A')),
    '10 m: B02, B03, B04, B08': ('B02', 'B03', 'B04', 'B08'),
    'true colour: B02, B03, B04': ('B02', 'B03', 'B04'),
    'short-wave infrared: B11, B12': ('B11', 'B12'),
    'B08 alone': ('B08',),
}
WAYS = {'all bands': False, 'sampled bands': True}
MODEL = 'channelmae_shallow_patch16'


def make_task(size: int) -> CrossModalClassification:
    """Make an untrained encoder with its head."""
    return CrossModalClassification(
        MODEL,
        in_channels=len(BANDS),
        bands=list(BANDS),
        size=size,
        embed_std=0.5,
        drop_path=0.0,
        layer_decay=1.0,
        base_lr=8e-3,
        warmup_epochs=1,
    )


def train(arguments: argparse.Namespace, sampled: bool, seed: int) -> Any:
    """Train an encoder; return it with its datamodule."""
    seed_everything(seed, verbose=False)
    task = make_task(arguments.size)
    data = BigEarthNetS1S2DataModule(
        arguments.root, bands=list(BANDS), size=arguments.size, batch_size=32
    )
    callbacks: list[Callback] = [SampleBands()] if sampled else []
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            max_epochs=arguments.epochs,
            limit_val_batches=0,
            default_root_dir=folder,
            callbacks=callbacks,
        )
        trainer.fit(task, data)
    return task.eval(), data


@torch.inference_mode()
def score(task: Any, data: Any) -> dict[str, float]:
    """Micro mAP of the test set, in percent, by the bands that images have."""
    data.setup('test')
    batches = [data.finish(batch, training=False) for batch in data.test_dataloader()]
    labels = torch.cat([batch['label'] for batch in batches]).numpy()
    found = {}
    for name, bands in SUBSETS.items():
        task.model.choose_bands(bands)
        kept = [BANDS.index(band) for band in bands]
        logits = [task.model(batch['image'][:, kept]) for batch in batches]
        probabilities = torch.cat(logits).sigmoid().numpy()
        found[name] = 100 * average_precision_score(
            labels, probabilities, average='micro'
        )
    task.model.choose_bands(None)
    floor = np.broadcast_to(labels.mean(0), labels.shape)  # classes' frequencies
    found['class frequencies'] = 100 * average_precision_score(
        labels, floor, average='micro'
    )
    return found


def step_times(size: int, steps: int) -> dict[str, float]:
    """Mean seconds of a step, alternating between all bands and sampled ones."""
    task = make_task(size).train()
    optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    images, labels = torch.randn(32, len(BANDS), size, size), torch.zeros(32, 19)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for step in range(steps + 2):  # the first two warm up
        for name, sampled in WAYS.items():
            start = time.perf_counter()
            chosen = sample_bands(BANDS, 1 if sampled else len(BANDS), (), step)
            task.model.choose_bands([BANDS[i] for i in chosen.tolist()])
            loss = task.criterion(task.model(images[:, chosen]), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.mean(taken) for name, taken in times.items()}


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--root', type=Path, required=True, help='folder of the data')
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--depth', type=int, default=4, help='blocks of ViT-Ti')
    parser.add_argument('--size', type=int, default=32, help='px')
    parser.add_argument('--steps', type=int, default=60, help='timed steps of each')
    parser.add_argument('--json', type=Path, help='file for the figures')
    arguments = parser.parse_args()
    register_variant(MODEL, 'channelmae_tiny_patch16', depth=arguments.depth)
    seconds = step_times(arguments.size, arguments.steps)
    ratio = seconds['sampled bands'] / seconds['all bands']
    threads = torch.get_num_threads()
    print(f'\ntorch {torch.__version__}, {threads} threads, batch 32')
    print('| | a step, ms |\n| -- | --: |')
    for name, mean in seconds.items():
        print(f'| {name} | {1000 * mean:.0f} |')
    print(f'| ratio | {ratio:.2f} |', flush=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in range(arguments.seeds):
        for name, sampled in WAYS.items():
            found[name].append(score(*train(arguments, sampled, seed)))
    print('\nTest mAP micro, mean and standard deviation over seeds')
    print(f'| tested on | {" | ".join(WAYS)} |\n| -- | --: | --: |')
    for subset in found['all bands'][0]:
        cells = []
        for runs in found.values():
            values = [run[subset] for run in runs]
            cells.append(f'{np.mean(values):.1f} ({np.std(values):.1f})')
        print(f'| {subset} | {" | ".join(cells)} |')
    if arguments.json:
        told = {'seconds': seconds, 'mAP_micro': found}
        arguments.json.write_text(json.dumps(told, indent=2))


if __name__ == '__main__':
    main()
