"""How fast recipes of pretraining reach which quality, with one encoder and budget.

    uv run python -m benchmarks.quality [--data conf/pretrain.yaml] [--out FOLDER]
    uv run python -m benchmarks.quality --report FOLDER [FOLDER ...] [--out FOLDER]

The same encoder and decoder learn from the same data for as many steps with each
recipe. At the start, every so many steps and at the end they fill in the same hidden
tokens of the validation samples: the error is that of all hidden pixels over that of
the trivial guess. A probe on the frozen encoder is scored at the start, half way and at
the end. Seconds are of training only. Results are written after each run, and a run
that --out has is not repeated.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, seed_everything
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeCV
from torch import Tensor

from torchgeo_channelmae.experiments import configuration
from torchgeo_channelmae.experiments.probes.classifiers import Protocol
from torchgeo_channelmae.experiments.probes.features import choose_samples
from torchgeo_channelmae.files import whole
from torchgeo_channelmae.losses import trivial_reconstruction
from torchgeo_channelmae.masking import RandomTokens
from torchgeo_channelmae.models.tokens import patchify
from torchgeo_channelmae.tasks import ChannelMAE
from torchgeo_channelmae.tasks.base import sample_keys
from torchgeo_channelmae.tasks.reconstruction import guess_error
from torchgeo_channelmae.token_numbers import tokens_of

from . import report
from .cases import device, positive
from .steps import quiet
from .timing import make_trainer

OURS = {'mask_ratio': 0.75, 'spectral_loss': 'mean', 'embed_std': 0.5}
PEER = {'betas': (0.9, 0.95), 'weight_decay': 0.05, 'embed_std': 0.02}
MUON = {
    'optimizer': 'muon',
    'weight_decay': 2.0,  # keeps the residual stream of twelve blocks from growing
    'optimizer_options': {'nesterov': True, 'fallback_lr_scale': 0.14},
}
RECIPES: dict[str, dict[str, Any]] = {
    'ours': {**OURS, **MUON, 'base_lr': 0.0288},  # 0.0072 at batch 16, as its root
    'adamw': {**OURS, 'base_lr': 0.016},  # 1e-3 at batch 16: another optimizer only
    'spectralgpt': {**PEER, 'mask_ratio': 0.9, 'spectral_loss': 'sum', 'base_lr': 2e-4},
    'mae': {**PEER, 'mask_ratio': 0.75, 'spectral_weight': 0.0, 'base_lr': 1.5e-4},
}
"""Arguments of ChannelMAE by recipe; the peers' rates and losses are the published."""

RATIOS = {'error_75': 0.75, 'error_90': 0.9}
"""Share of the tokens that is hidden, by column of the results."""

RUN = ['recipe', 'model', 'seed']
PAIR = ['recipe', 'model', 'until the end of']
CLOCKS = ['seconds', 'cpu_seconds']
SHARED = ('data', 'decoder', 'size', 'batch_size', 'steps', 'every', 'device')
"""Options that all runs must agree in."""

LIMIT, CHUNK = 256, 64  # samples of a split that are read, that are encoded at once


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, {'type': positive}
    add('--data', type=Path, default='conf/pretrain.yaml', help='has a data section')
    add('--model', nargs='+', default=['channelmae_tiny_patch16'])
    add('--decoder', nargs=3, **count, default=[128, 2, 4], help='width, depth, heads')
    add('--size', **count, help='px; by default as the data say')
    add('--batch', **count, dest='batch_size', help='by default as the data say')
    add('--steps', **count, default=2000)
    add('--every', **count, default=100, help='steps between evaluations')
    add('--seeds', nargs='+', type=int, default=[0, 1, 2])
    add('--recipes', nargs='+', choices=RECIPES, default=[*RECIPES])
    add('--decode-share', type=float, help='run each recipe with this, too')
    add('--stop-at', metavar='ERROR|RECIPE', help='end runs here, 75 %% hidden')
    add('--threads', **count)
    add('--device', default='cpu', type=device, help='cpu or cuda')
    add('--out', type=Path, default=Path('quality'), help='folder of the results')
    add('--report', nargs='+', type=Path, help='only summarize these folders')
    return parser.parse_args()


# Evaluation


@torch.no_grad()
def error(task: Any, samples: dict[str, Tensor], ratio: float) -> float:
    """Fill in hidden tokens; divide the error of their pixels by the trivial guess's.

    Masks are random tokens whatever the task's own are, the same in every run; at the
    task's own ratio they are those of its validation.
    """
    kept, task.masking = task.masking, RandomTokens(ratio)
    total = torch.zeros(2, dtype=torch.float64)
    parts = (samples[key].split(CHUNK) for key in ('image', 'index'))
    for image, index in zip(*parts, strict=True):
        keys = sample_keys(index, 'validation mask').to(task.device)
        found = task.reconstruct(image.to(task.device), keys)
        guess = trivial_reconstruction(found.target, found.mask.visible, image.shape[1])
        trivial = guess_error(guess, found)
        total += torch.stack([task.losses(found)[0], trivial]).sum(1).cpu()
    task.masking = kept
    return float(total[0] / total[1])


@torch.no_grad()
def encode(task: Any, image: Tensor, shown: Tensor) -> Tensor:
    """Encode some bands (K,) of images; return means by cell, (n, L, D)."""
    model, made = task.model, []
    height, width = model.patch_embed.dynamic_feat_size(image.shape[-2:])
    for part in image.split(CHUNK):
        visible = tokens_of(shown.expand(len(part), -1), height * width)
        tokens = model.encode(part.to(task.device), visible.to(task.device))
        tokens = tokens[:, model.num_prefix_tokens :].unflatten(1, (len(shown), -1))
        made.append(tokens.mean(1).cpu())
    return torch.cat(made)


def probe(task: Any, samples: dict[str, dict[str, Tensor]]) -> dict[str, float]:
    """Score what the frozen encoder knows of validation samples, beside a baseline.

    With labels: macro mAP of logistic regression, and of the class frequencies.
    Without: the encoder sees every second band, and from its features at a cell ridge
    regression predicts the other bands' means there; R2, and that of ridge regression
    from the means of the bands that are seen.

    Args:
        task: The task.
        samples: Those of ``train`` and ``val``.
    """
    bands, side = len(task.model.bands), task.model.patch_embed.patch_size[0]
    items, ridge = samples.items(), RidgeCV(np.logspace(-2, 5, 8))
    labels = {split: part['label'] for split, part in items if 'label' in part}
    shown = torch.arange(0, bands, 1 if labels else 2)
    found = {split: encode(task, part['image'], shown) for split, part in items}
    if labels:
        protocol = Protocol(labels, 'val', 'data', neighbors=1)
        features = {split: each.mean(1).numpy() for split, each in found.items()}
        both = protocol.scores(features, ['linear'])['linear'], protocol.chance()
        scores = [each['mAP_macro'] for each in both]
    else:
        rows = {}
        for split, part in items:
            means = patchify(part['image'], side).mean(-1).unflatten(1, (bands, -1)).mT
            parts = found[split], means[..., ::2], means[..., 1::2]
            rows[split] = [each.flatten(0, 1).double().numpy() for each in parts]
        (*known, target), (*unknown, truth) = rows['train'], rows['val']
        pairs = zip(known, unknown, strict=True)
        scores = [float(ridge.fit(x, target).score(y, truth)) for x, y in pairs]
    return dict(zip(('probe', 'baseline'), scores, strict=True))


class Meter(Callback):
    """Evaluates a task at the start, every so many steps and at the end.

    Attributes:
        rows: What was found, by column of the results.
    """

    def __init__(self, samples: Any, every: int, stop_at: float) -> None:
        """Initialize with samples by split, steps between evaluations, a last error."""
        self.samples, self.every, self.stop_at = samples, every, stop_at
        self.rows, self.spent = [], np.zeros(2)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Evaluate before the first step, and start the clocks."""
        if not self.rows:
            self.measure(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Stop the clocks, evaluate, and start them again."""
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps:
            self.spent = self.spent + clocks() - self.begin
            self.measure(trainer, pl_module)

    def measure(self, trainer: Any, task: Any) -> None:
        """Add a row; stop if the error is low enough."""
        task.eval()
        step, last = trainer.global_step, trainer.max_steps
        row = {'step': step} | dict(zip(CLOCKS, self.spent, strict=True))
        row |= {k: error(task, self.samples['val'], r) for k, r in RATIOS.items()}
        trainer.should_stop = step == last or row['error_75'] <= self.stop_at
        if trainer.should_stop or step in (0, last // 2 // self.every * self.every):
            row |= probe(task, self.samples)
        print(f'  step {step}: {row["error_75"]:.3f}', file=sys.stderr, flush=True)
        self.rows.append(row)
        task.train()
        self.begin = clocks()


def clocks() -> Any:
    """Return seconds of the wall clock and of this process's CPU time, (2,)."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


# Runs


def train(options: argparse.Namespace, seed: int, stop_at: float, **given: Any) -> Any:
    """Pretrain with arguments of a recipe; return the rows of the :class:`Meter`."""
    seed_everything(seed, verbose=False)
    changes = {k: v for k in ('size', 'batch_size') if (v := vars(options)[k])}
    data: Any = configuration.read_datamodule([options.data], changes)[0]
    data.setup('fit')
    samples = {}
    for split in ('train', 'val'):  # the same in every run
        dataset, chosen = choose_samples(data, split, LIMIT)
        batch = data.collate_fn([dataset[row] for row in chosen])
        samples[split] = configuration.process_batch(data, batch, 'val')
    names = ('decoder_dim', 'decoder_depth', 'decoder_num_heads')
    given |= zip(names, options.decoder, strict=True)
    bands = [*data.facts.bands]
    given |= {'bands': bands, 'in_channels': len(bands), 'size': data.facts.size}
    warmup = 0.1 * options.steps / len(data.train_dataloader())  # epochs
    meter = Meter(samples, options.every, stop_at)
    limits = {'max_steps': options.steps, 'limit_val_batches': 0, 'devices': 1}
    with quiet():
        trainer = make_trainer(accelerator=options.device, callbacks=[meter], **limits)
        trainer.fit(ChannelMAE(warmup_epochs=warmup, **given), data)
    return meter.rows


def run(options: argparse.Namespace) -> pd.DataFrame:
    """Run what the folder lacks; write the results after each run."""
    file = options.out / 'results.csv'
    empty = pd.DataFrame(columns=[*RUN, 'error_75'])
    results = pd.read_csv(file) if file.is_file() else empty
    recipes = {name: RECIPES[name] for name in options.recipes}
    if share := options.decode_share:
        less = {'decode_share': share}
        recipes |= {f'{k}, {share:g} decoded': v | less for k, v in recipes.items()}
    machine = report.machine(options.device)
    settings = json.dumps({k: vars(options)[k] for k in SHARED}, default=str)
    facts = {'settings': settings, 'machine': report.about(machine)}
    for model, seed, name in itertools.product(options.model, options.seeds, recipes):
        key = dict(zip(RUN, (name, model, seed), strict=True))
        about = facts | {'arguments': json.dumps(recipes[name])}
        check(pd.concat([results, pd.DataFrame([key | about])]))
        own = results[(results['model'] == model) & (results['seed'] == seed)]
        if name in own['recipe'].values:
            continue
        print(*key.values(), file=sys.stderr, flush=True)
        end = own[own['recipe'] == options.stop_at]['error_75'].tail(1).min()
        stop_at = end if options.stop_at in RECIPES else options.stop_at or '-inf'
        rows = train(options, seed, float(stop_at), model=model, **recipes[name])
        made = pd.DataFrame([key | row | about for row in rows])
        results = pd.concat([results, made]) if len(results) else made
        with whole(file) as partial:
            results.to_csv(partial, index=False)
        write(results, options.out)
    return results


def check(results: pd.DataFrame) -> None:
    """Raise ValueError unless runs, and those of one recipe, were made alike."""
    groups = [*results.groupby('recipe')['arguments'], ('All', results['settings'])]
    for name, found in ((name, {*column}) for name, column in groups):
        if len(found) > 1:
            raise ValueError(f'{name} runs differ: {[*found]}. Use another folder.')


# The report


def races(results: pd.DataFrame, column: str) -> pd.DataFrame:
    """Compare runs of a model and seed with the ends of each other's.

    Nothing is interpolated: a run reaches an error at its first evaluation at or below
    it, infinitely late if there is none. A run that was stopped is no goal.

    Returns:
        By pair of recipes, model and seed, when the one reaches the error at which the
        other ends, and that as shares of the other's steps and seconds.
    """
    budget, rows = json.loads(results['settings'].iloc[0])['steps'], []
    for (model, seed), runs in results.groupby(['model', 'seed'], sort=False):
        curves = dict([*runs.groupby('recipe', sort=False)])
        for recipe, peer in itertools.permutations(curves, 2):
            curve, end = curves[recipe], curves[peer].iloc[-1]
            if end['step'] < budget:
                continue
            clocks = ['step', *CLOCKS]
            found = curve[curve[column] <= end[column]][clocks].min().fillna(np.inf)
            row = dict(zip([*PAIR, 'seed'], (recipe, model, peer, seed), strict=True))
            shares = (found / end[clocks]).add_prefix('of ')
            rows.append({**row, 'at error': end[column], **found, **shares})
    return pd.DataFrame(rows)


def spread(values: pd.Series) -> str:
    """Write the median of values, their mean and each; -- where infinite or NaN."""
    shown = [values.median(), values.mean(), *values]
    text, mean, *each = (f'{x:.4g}' if np.isfinite(x) else '--' for x in shown)
    return f'{text} ({mean}: {", ".join(each)})' if len({*each}) > 1 else text


def markdown(results: pd.DataFrame) -> str:
    """Write a summary for people."""
    lines = ['# Time to quality', '', results['settings'].iloc[0], '']
    lines += [f'* {line}' for line in results['machine'].unique()]
    alike = results.drop_duplicates(['recipe', 'arguments'])
    lines += [f'* {row.recipe}: `{row.arguments}`' for row in alike.itertuples()]
    runs = results.groupby(RUN, sort=False)
    ends = runs.tail(1).drop(columns=['settings', 'machine', 'arguments'])
    ends['untrained'] = runs['probe'].first().values
    tables = {'Where runs end:': (ends, RUN[:2])}
    for name, ratio in RATIOS.items():
        title = f'When a recipe is as good as another ends, {ratio:.0%} hidden:'
        tables[title] = races(results, name), PAIR
    lines += ['', 'Medians (mean: each seed, where they differ), -- for never.']
    for title, (table, names) in tables.items():
        if len(table):
            table = table.drop(columns='seed').groupby(names, sort=False).agg(spread)
            lines += ['', title, '', table.reset_index().to_markdown(index=False)]
    return '\n'.join(lines) + '\n'


def plot(results: pd.DataFrame) -> Figure:
    """Draw errors over steps and over seconds: seeds thin, their mean thick."""
    models, recipes = ([*results[name].unique()] for name in ('model', 'recipe'))
    figure = Figure(figsize=(11, 4 * len(models)), layout='constrained')
    axes = figure.subplots(len(models), 2, sharey='row', squeeze=False)
    results = results.assign(at=results['step'])
    for (model, name), runs in results.groupby(['model', 'recipe'], sort=False):
        curves, clocks = runs.pivot(index='at', columns='seed'), ('step', 'seconds')
        for axis, clock in zip(axes[models.index(model)], clocks, strict=True):
            x, y, color = curves[clock], curves['error_75'], f'C{recipes.index(name)}'
            axis.plot(x, y, color, lw=0.5)
            means = (each.mean(axis=1, skipna=False) for each in (x, y))
            axis.plot(*means, color, lw=2, label=name)
            axis.set(xlabel=clock, ylabel='error_75', title=model, yscale='log')
            axis.legend()
    return figure


def write(results: pd.DataFrame, folder: Path) -> str:
    """Write ``summary.md``, which is returned, and ``summary.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'summary.md').write_text(text := markdown(results))
    plot(results).savefig(folder / 'summary.png', dpi=120)
    return text


def main() -> None:
    """Run and summarize, or only summarize."""
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        if options.report:
            files = [folder / 'results.csv' for folder in options.report]
            results = pd.concat(map(pd.read_csv, files)).drop_duplicates([*RUN, 'step'])
            check(results)
        else:
            results = run(options)
    except (ValueError, OSError) as problem:
        sys.exit(str(problem))
    print(write(results, options.out))


if __name__ == '__main__':
    main()
