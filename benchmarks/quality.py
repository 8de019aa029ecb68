"""How fast recipes of pretraining reach which quality, with one encoder and budget.

    uv run python -m benchmarks.quality [--data conf/pretrain.yaml] [--out FOLDER]
    uv run python -m benchmarks.quality --report FOLDER [FOLDER ...]

The same encoder and decoder learn from the same data for the same number of steps with
each recipe. At the start, every so many steps and at the end they fill in the same
hidden tokens of the validation samples; the error is that of all hidden pixels over
that of the trivial guess. A probe on the frozen encoder is scored at the start, half way
and at the end. Seconds are of training only. A run that --out has is not run again.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from torchgeo_channelmae.experiments.configuration import process_batch, read_datamodule
from torchgeo_channelmae.experiments.probes.classifiers import Protocol
from torchgeo_channelmae.experiments.probes.features import choose_samples
from torchgeo_channelmae.files import whole
from torchgeo_channelmae.losses import token_to_token, trivial_reconstruction
from torchgeo_channelmae.masking import RandomTokens
from torchgeo_channelmae.models.tokens import gather_tokens, patchify
from torchgeo_channelmae.tasks import ChannelMAE
from torchgeo_channelmae.tasks.base import sample_keys
from torchgeo_channelmae.token_numbers import tokens_of

from . import report
from .cases import device, positive
from .steps import quiet
from .timing import make_trainer

_OURS = {'mask_ratio': 0.75, 'spectral_loss': 'mean', 'embed_std': 0.5}
_PEERS = {'betas': (0.9, 0.95), 'weight_decay': 0.05, 'embed_std': 0.02}
RECIPES: dict[str, dict[str, Any]] = {
    'ours': _OURS
    | {
        'optimizer': 'muon',
        'base_lr': 0.0288,  # 0.0072 at batch 16: Muon's grows with the batch's root
        'optimizer_options': {'fallback_lr_scale': 0.14},
    },
    'adamw': _OURS | {'base_lr': 0.016},  # 1e-3 at batch 16; only the optimizer differs
    'spectralgpt': _PEERS
    | {'base_lr': 2e-4, 'mask_ratio': 0.9, 'spectral_loss': 'sum'},
    'mae': _PEERS | {'base_lr': 1.5e-4, 'mask_ratio': 0.75, 'spectral_weight': 0.0},
}
"""Arguments of ChannelMAE by recipe, rates per 256 samples; the peers' are published."""

WARMUP = 0.1  # of the steps
RATIOS = {'error_75': 0.75, 'error_90': 0.9}
"""Share of the tokens that is hidden, by column."""

RUN = ['recipe', 'model', 'seed']
LIMIT = 512  # samples of a split that are evaluated
CHUNK = 64  # of which go through a model at once

Floats = npt.NDArray[np.floating]


class Samples(NamedTuple):
    """Normalized samples.

    Attributes:
        image: (n, C, H, W).
        index: (n,) int64, index of each in its dataset.
        label: (n,) or (n, K); None without labels.
    """

    image: Tensor
    index: Tensor
    label: Tensor | None


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    conf = Path(__file__).parents[1] / 'conf' / 'pretrain.yaml'
    add('--data', type=Path, default=conf, help='YAML with a data section')
    add('--model', nargs='+', default=['channelmae_tiny_patch16'])
    add(
        '--decoder',
        nargs=3,
        type=positive,
        default=[128, 2, 4],
        help='D, blocks, heads',
    )
    add('--size', type=positive, help='px; by default as the data say')
    add('--batch', type=positive, help='by default as the data say')
    add('--steps', type=positive, default=2000)
    add('--every', type=positive, default=100, help='steps between evaluations')
    add('--seeds', nargs='+', type=int, default=[0, 1, 2])
    add('--recipes', nargs='+', choices=RECIPES, default=[*RECIPES])
    add('--decode-share', type=float, help='run each recipe with this, too')
    stop = 'end a run at this error at mask 0.75, or at that of an earlier recipe'
    add('--stop-at', metavar='ERROR|RECIPE', help=stop)
    add('--threads', type=positive, help="torch's default otherwise")
    add('--device', default='cpu', type=device, help='cpu or cuda')
    add('--out', type=Path, default=Path('quality'), help='folder of the results')
    only = 'only summarize the results of these folders in --out'
    add('--report', nargs='+', type=Path, metavar='FOLDER', help=only)
    return parser.parse_args()


# Evaluation


def read_samples(datamodule: Any, split: str) -> Samples:
    """Read samples of a split, the same in every run, sized as in validation."""
    dataset, chosen = choose_samples(datamodule, split, LIMIT)
    batch = datamodule.collate_fn([dataset[row] for row in chosen])
    batch = process_batch(datamodule, batch, 'val')
    return Samples(batch['image'], batch['index'], batch.get('label'))


@torch.no_grad()
def error(task: ChannelMAE, samples: Samples, ratio: float) -> float:
    """Fill in hidden tokens; divide the error of their pixels by the trivial guess's.

    Masks depend on the ratio and the samples only, not on the task's own masking.
    """
    model, total = task.model, torch.zeros(2, dtype=torch.float64)
    side, bands = model.patch_embed.patch_size[0], len(model.bands)
    parts = samples.image.split(CHUNK), samples.index.split(CHUNK)
    for image, index in zip(*parts, strict=True):
        pixels = patchify(image, side)
        cells = pixels.shape[1] // bands
        mask = RandomTokens(ratio)(sample_keys(index, 'quality'), 0, bands, cells)
        visible, hidden = (part.to(task.device) for part in mask[:2])
        encoded = model.encode(image.to(task.device), visible)
        grid = model.patch_embed.dynamic_feat_size(image.shape[-2:])
        made = task.decoder(encoded, visible, hidden, grid).float().cpu()
        guess = trivial_reconstruction(pixels, mask.visible, bands)
        truth = gather_tokens(pixels, mask.hidden)
        for row, tokens in enumerate((made, gather_tokens(guess, mask.hidden))):
            total[row] += token_to_token(tokens, truth).sum()
    return float(total[0] / total[1])


def probe(
    task: ChannelMAE, train: Samples, val: Samples
) -> tuple[float, float]:  # score, and what it is to be compared with
    """Score features of the frozen encoder on validation samples.

    With labels: macro mAP of logistic regression, and that of the class frequencies.
    Without: the encoder sees every second band, and ridge regression predicts the means
    of the other bands at each cell from its features there; R2, and that from the means
    of the bands that it sees. NaN if there is one band.
    """
    if val.label is not None and train.label is not None:
        labels = {'train': train.label, 'val': val.label}
        protocol = Protocol(labels, 'val', 'data', neighbors=1)
        features = {'train': pooled(task, train), 'val': pooled(task, val)}
        made = protocol.scores(features, ('linear',))['linear']
        return made['mAP_macro'], protocol.chance()['mAP_macro']
    shown = torch.arange(0, len(task.model.bands), 2)
    if len(shown) == len(task.model.bands):
        return float('nan'), float('nan')
    side, found = task.model.patch_embed.patch_size[0], []
    for samples in (train, val):
        means = patchify(samples.image, side).mean(-1)
        means = means.unflatten(1, (len(task.model.bands), -1)).movedim(1, 2)
        seen, unseen = means[..., ::2], means[..., 1::2]
        parts = cell_features(task, samples.image, shown), seen, unseen
        found.append([part.flatten(0, 1).double().numpy() for part in parts])
    (encoded, raw, target), (encoded_val, raw_val, truth) = found
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 8)))
    made = [
        float(r2_score(truth, model.fit(x, target).predict(y)))
        for x, y in ((encoded, encoded_val), (raw, raw_val))
    ]
    return made[0], made[1]


@torch.no_grad()
def pooled(task: ChannelMAE, samples: Samples) -> Floats:
    """Return pooled features of whole images, (n, D)."""
    parts = samples.image.split(CHUNK)
    made = [task.model(part.to(task.device)).float().cpu() for part in parts]
    return torch.cat(made).numpy()


@torch.no_grad()
def cell_features(task: ChannelMAE, image: Tensor, shown: Tensor) -> Tensor:
    """Encode some bands only; return their tokens' mean at each cell, (n, L, D)."""
    model, made = task.model, []
    height, width = model.patch_embed.dynamic_feat_size(image.shape[-2:])
    for part in image.split(CHUNK):
        visible = tokens_of(shown.expand(len(part), -1), height * width)
        tokens = model.encode(part.to(task.device), visible.to(task.device))
        tokens = tokens[:, model.num_prefix_tokens :]
        made.append(tokens.unflatten(1, (len(shown), -1)).mean(1).float().cpu())
    return torch.cat(made)


class Meter(Callback):
    """Evaluates a task at the start, every so many steps and at the end.

    Attributes:
        rows: Step, seconds, CPU seconds of the process, errors and probe of each.
    """

    def __init__(
        self, train: Samples, val: Samples, every: int, stop_at: float
    ) -> None:
        """Initialize the meter: samples, steps between evaluations, error to stop at."""
        self.train, self.val, self.every, self.stop_at = train, val, every, stop_at
        self.rows: list[dict[str, float]] = []
        self.spent, self.begin = np.zeros(2), np.zeros(2)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate before the first step, and start the clocks."""
        if not self.rows:
            self.measure(pl_module, 0, True)
            self.begin = clocks()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Stop the clocks, evaluate, and start them again."""
        step, last = trainer.global_step, trainer.max_steps
        if step % self.every and step != last:
            return
        self.spent += clocks() - self.begin
        half = last // 2 // self.every * self.every
        self.measure(pl_module, step, step in (half, last))
        if step < last and self.rows[-1]['error_75'] <= self.stop_at:
            self.rows[-1] |= self.probe(pl_module)
            trainer.should_stop = True
        self.begin = clocks()

    def measure(self, task: Any, step: int, probed: bool) -> None:
        """Add a row."""
        task.eval()
        row: dict[str, float] = {'step': step}
        row |= dict(zip(('seconds', 'cpu_seconds'), self.spent, strict=True))
        row |= {name: error(task, self.val, ratio) for name, ratio in RATIOS.items()}
        self.rows.append(row | (self.probe(task) if probed else {}))
        task.train()
        print(f'  step {step}: {row["error_75"]:.3f}', file=sys.stderr, flush=True)

    def probe(self, task: Any) -> dict[str, float]:
        """Return the columns of the probe."""
        names = 'probe', 'baseline'
        return dict(zip(names, probe(task, self.train, self.val), strict=True))


def clocks() -> Floats:
    """Return the seconds of the wall clock and of this process's CPU time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


# Runs


def train(
    arguments: Mapping[str, Any], settings: Mapping[str, Any], seed: int, stop_at: float
) -> list[dict[str, float]]:
    """Pretrain with one recipe; return what its :class:`Meter` read."""
    seed_everything(seed, verbose=False)
    changes = {k: settings[k] for k in ('size', 'batch_size') if settings[k]}
    data, _ = read_datamodule([settings['data']], changes)
    data.setup('fit')
    meter = Meter(
        read_samples(data, 'train'),
        read_samples(data, 'val'),
        settings['every'],
        stop_at,
    )
    facts: Any = data.facts
    dim, depth, heads = settings['decoder']
    seed_everything(seed, verbose=False)
    task = ChannelMAE(
        in_channels=len(facts.bands),
        bands=list(facts.bands),
        size=facts.size,
        decoder_dim=dim,
        decoder_depth=depth,
        decoder_num_heads=heads,
        warmup_epochs=WARMUP * settings['steps'] / len(data.train_dataloader()),
        **arguments,
    )
    trainer = make_trainer(
        accelerator=settings['device'],
        devices=1,
        max_steps=settings['steps'],
        limit_val_batches=0,
        callbacks=[meter],
    )
    with quiet():
        trainer.fit(task, datamodule=data)
    return meter.rows


def run(options: argparse.Namespace) -> None:
    """Run what the folder lacks; results are written after each run."""
    recipes = {name: RECIPES[name] for name in options.recipes}
    if share := options.decode_share:
        names = [(name, f'{name}, decode {share:g}') for name in recipes]
        shared = {new: recipes[name] | {'decode_share': share} for name, new in names}
        recipes |= shared
    settings = {
        'data': str(options.data),
        'size': options.size,
        'batch_size': options.batch,
        'steps': options.steps,
        'every': options.every,
        'decoder': options.decoder,
        'device': options.device,
        'recipes': json.loads(json.dumps(recipes)),
        'machine': [report.about(report.machine(options.device))],
    }
    results = pd.DataFrame(columns=[*RUN, 'step'])
    if (options.out / 'results.csv').is_file():
        settings, results = read([options.out], settings)
    for model, seed, name in itertools.product(options.model, options.seeds, recipes):
        if len(select(results, name, model, seed)):
            continue
        print(f'{name}, {model}, seed {seed}', file=sys.stderr, flush=True)
        stop_at = threshold(options.stop_at, results, model, seed)
        rows = train(recipes[name] | {'model': model}, settings, seed, stop_at)
        made = pd.DataFrame(rows).assign(recipe=name, model=model, seed=seed)
        made = made[[*RUN, *made.columns.drop(RUN)]]
        results = pd.concat([results, made]) if len(results) else made
        with whole(options.out / 'settings.json') as file:
            file.write_text(json.dumps(settings, indent=1))
        with whole(options.out / 'results.csv') as file:
            results.to_csv(file, index=False)
        write(results, settings, options.out)


def select(results: pd.DataFrame, recipe: str, model: str, seed: int) -> pd.DataFrame:
    """Return the rows of a run; none if it is not there."""
    return results[(results[RUN] == [recipe, model, seed]).all(axis=1)]


def threshold(
    stop_at: str | None, results: pd.DataFrame, model: str, seed: int
) -> float:
    """Return the error to stop at: a number, or where a recipe ended; or none, -inf."""
    if stop_at is None:
        return -np.inf
    if stop_at not in RECIPES:
        return float(stop_at)
    found = select(results, stop_at, model, seed)
    return float(found['error_75'].iloc[-1]) if len(found) else -np.inf


def read(
    folders: Sequence[Path], first: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read the results of folders together, with their settings.

    Raises:
        ValueError: If they, or settings to go on with, differ in more than the recipes
            that were run and the machine.
    """
    merged: dict[str, Any] = dict(first or {})
    for folder in folders:
        own = json.loads((folder / 'settings.json').read_text())
        merged = merged or own
        same = {k: v for k, v in own.items() if k not in ('recipes', 'machine')}
        same |= {'recipes': merged['recipes'] | own['recipes']}
        for key, value in same.items():
            if key == 'recipes':
                both = {k: merged[key].get(k, v) for k, v in value.items()}
                if both == value:
                    continue
            elif merged[key] == value:
                continue
            raise ValueError(
                f'{folder} was run with other {key}: {own[key]}, not {merged[key]}. Use '
                f'another folder.'
            )
        machines = dict.fromkeys([*own['machine'], *merged['machine']])
        merged |= {'recipes': same['recipes'], 'machine': list(machines)}
    results = pd.concat([pd.read_csv(folder / 'results.csv') for folder in folders])
    return merged, results.drop_duplicates([*RUN, 'step'])


# The report


def reached(curve: pd.DataFrame, column: str, goal: float) -> Mapping[str, float]:
    """Return the first evaluation at or below an error; infinite if there is none.

    Nothing is interpolated, so the truth is up to ``--every`` steps earlier.
    """
    found = curve[curve[column] <= goal]
    if len(found):
        return found.iloc[0].to_dict()
    return dict.fromkeys(('step', 'seconds', 'cpu_seconds'), float('inf'))


def races(results: pd.DataFrame, steps: int, column: str) -> pd.DataFrame:
    """Compare runs of a model and seed with the ends of each other's.

    Args:
        results: Rows of all runs.
        steps: Budget. A run that stopped before is no goal.
        column: The error.

    Returns:
        For each pair of recipes, by model and seed, when the one reaches the error at
        which the other ends, and the shares of the other's steps and seconds.
    """
    rows = []
    for (model, seed), runs in results.groupby(['model', 'seed'], sort=False):
        curves = dict(iter(runs.groupby('recipe', sort=False)))
        for recipe, peer in itertools.permutations(curves, 2):
            end = curves[peer].iloc[-1]
            if end['step'] == steps:
                found = reached(curves[recipe], column, end[column])
                row = {'model': model, 'recipe': recipe, 'until the end of': peer}
                row |= {'seed': seed, 'error': end[column]}
                for clock in ('step', 'seconds', 'cpu_seconds'):
                    row |= {
                        clock: found[clock],
                        f'of {clock}': found[clock] / end[clock],
                    }
                rows.append(row)
    return pd.DataFrame(rows)


def spread(values: pd.Series, form: str = '.3g') -> str:
    """Write the median and range of values; a dash for none, or where it is infinite."""
    shown = [values.median(), values.min(), values.max()]
    middle, low, high = (f'{x:{form}}' if np.isfinite(x) else '--' for x in shown)
    return middle if len(values) == 1 else f'{middle} ({low} to {high})'


def markdown(results: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Write a summary for people."""
    about = {k: v for k, v in settings.items() if k not in ('recipes', 'machine')}
    facts = (f'{key} {value}' for key, value in about.items() if value is not None)
    lines = ['# Time to quality', '', '; '.join(facts) + '.', '']
    lines += [f'* {line}' for line in settings['machine']]
    lines += [f'* {name}: {given}' for name, given in settings['recipes'].items()]
    ends = results.groupby(RUN, sort=False).tail(1)
    starts = results[results['step'] == 0].set_index(RUN)['probe']
    ends = ends.join(starts.rename('untrained'), on=RUN)
    columns = ['step', 'error_75', 'error_90', 'seconds', 'cpu_seconds']
    columns += ['probe', 'untrained', 'baseline']
    groups = ends.groupby(['model', 'recipe'], sort=False)
    table = groups[columns].agg(spread)
    table.insert(0, 'runs', groups.size())
    text = 'Where runs end: median over seeds, and range. Errors are over the trivial '
    text += "guess's. The probe is beside the untrained encoder's and its baseline."
    lines += ['', text, '', table.reset_index().to_markdown(index=False)]
    for column, ratio in RATIOS.items():
        found = races(results, settings['steps'], column)
        if not len(found):
            continue
        table = found.groupby([*found.columns[:3]], sort=False).agg(
            **{
                'its error': ('error', spread),
                'steps by seed': ('step', listed),
                'mean steps': ('step', 'mean'),
                'of its steps': ('of step', spread),
                'seconds by seed': ('seconds', listed),
                'mean seconds': ('seconds', 'mean'),
                'of its seconds': ('of seconds', spread),
                'of its CPU seconds': ('of cpu_seconds', spread),
            }
        )
        text = (
            f'Until a recipe has the error at which another ends, {ratio:.0%} hidden: '
        )
        text += 'first evaluation at or below it, -- for never.'
        shown = table.reset_index().replace(np.inf, '--')
        lines += ['', text, '', shown.to_markdown(index=False, floatfmt='.4g')]
    return '\n'.join(lines) + '\n'


def listed(values: pd.Series) -> str:
    """Write values one by one."""
    return ', '.join(f'{x:.0f}' if np.isfinite(x) else '--' for x in values)


def plot(results: pd.DataFrame) -> Figure:
    """Draw errors over steps and seconds: seeds thin, their mean thick."""
    models = results['model'].unique()
    figure = Figure(figsize=(11, 4 * len(models)), layout='constrained')
    axes = figure.subplots(len(models), 2, sharey='row', squeeze=False)
    colors = {name: f'C{n}' for n, name in enumerate(results['recipe'].unique())}
    for row, model in zip(axes, models, strict=True):
        for name, runs in results[results['model'] == model].groupby('recipe'):
            by_step = runs.groupby('step')
            mean = by_step[['seconds', 'error_75']].mean().reset_index()
            mean = mean[by_step.size().values == runs['seed'].nunique()]
            for axis, clock in zip(row, ('step', 'seconds'), strict=True):
                for _, curve in runs.groupby('seed'):
                    axis.plot(curve[clock], curve['error_75'], colors[name], lw=0.5)
                line = mean[clock], mean['error_75'], colors[name]
                axis.plot(*line, lw=2, label=name)
                axis.set(xlabel=clock, title=model, ylim=(0, 1.1))
        row[0].set_ylabel("error over the trivial guess's, 75 % hidden")
        row[0].legend()
    return figure


def write(results: pd.DataFrame, settings: Mapping[str, Any], folder: Path) -> None:
    """Write ``summary.md`` and ``summary.png`` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'summary.md').write_text(markdown(results, settings))
    plot(results).savefig(folder / 'summary.png', dpi=120)


def main() -> int:
    """Run and summarize, or only summarize."""
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        if options.report:
            settings, results = read(options.report)
            write(results, settings, options.out)
        else:
            run(options)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print((options.out / 'summary.md').read_text())
    return 0


if __name__ == '__main__':
    sys.exit(main())
