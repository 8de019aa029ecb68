"""A page of Markdown beside an export, for whoever finds the file."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..sensors import find


def model_card(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str
) -> str:
    """Write the card of an export.

    Args:
        header: Its header.
        tensors: Its tensors.
        name: Name of its file.

    Returns:
        Markdown, with the front matter that the Hugging Face hub reads.
    """
    count = sum(v.numel() for k, v in tensors.items() if k.startswith('model.'))
    decoder = header['decoder']
    parts = [
        '---\nlibrary_name: timm\ntags:\n- torchgeo\n- earth-observation\n'
        '- masked-autoencoder\n---',
        f'# {header["model"]}',
        f'A vision transformer over channel tokens, {count:,} parameters, patches of '
        f'{header["patch_size"]} px, made for {header["size"]} px. '
        + ('With the decoder of its pretraining.' if decoder else 'Without a decoder.'),
        '## Bands, in this order',
        _bands(header),
        '## What its trainings read',
        _trainings(header['provenance'], tensors),
        'Scores on data or sensors that are listed here are no scores of '
        'generalisation. No score comes with this file.',
        '## Use',
        _use(header, name),
        '## Made with',
        ', '.join(f'{key} {value}' for key, value in sorted(header['versions'].items()))
        + f'. Content hash (BLAKE2b) {header["hash"]}.',
    ]
    return '\n\n'.join(parts) + '\n'


def _bands(header: Mapping[str, Any]) -> str:
    known = header['normalization']
    rows = ['| band | sensor | mean | std |', '| -- | -- | --: | --: |']
    for number, name in enumerate(header['bands']):
        band = find(name)
        sensor = 'unknown' if band is None else band.sensor.rpartition(' ')[0]
        values = ['not known', 'not known']
        if known is not None and known['bands'] == header['bands']:
            values = [f'{known[key][number]:.6g}' for key in ('mean', 'std')]
        rows.append(f'| {name} | {sensor} | {" | ".join(values)} |')
    return (
        '\n'.join(rows)
        + '\n\nImages are normalised as (pixel - mean) / std, in physical '
        + 'units: digital numbers of reflectance x 10,000, decibels.'
    )


def _trainings(provenance: Any, tensors: Mapping[str, Tensor]) -> str:
    if not provenance:
        return 'Not known.'
    rows = [
        '| data | sensors | bands | patches | labels |',
        '| -- | -- | -- | --: | -- |',
    ]
    for training in provenance['inherited'] + provenance['own']:
        record = training['record']
        labels = {True: 'learned', False: 'not learned', None: 'not known'}
        learned = labels[training['supervised']]
        if record is None:
            rows.append(
                f'| not known | not known | not known | not known | {learned} |'
            )
            continue
        patches = record['patches']
        number = 'not known' if patches is None else f'{len(tensors[patches]):,}'
        rows.append(
            f'| {record["dataset"]} | {", ".join(record["sensors"])} | '
            f'{", ".join(record["bands"])} | {number} | {learned} |'
        )
    return '\n'.join(rows)


def _use(header: Mapping[str, Any], name: str) -> str:
    bands = ', '.join(header['bands'])
    return (
        f'```python\nimport timm\nfrom torchgeo_channelmae.models import '
        f"register_weights\n\nregister_weights('{header['model']}.mine', "
        f"file='{name}')\nmodel = timm.create_model('{header['model']}.mine', "
        f'pretrained=True)\n```\n\nOr in YAML, with the bands of your own data; these '
        f'are {bands}:\n\n```yaml\nmodel:\n  class_path: '
        f'torchgeo_channelmae.tasks.CrossModalClassification\n  init_args:\n    model: '
        f'{header["model"]}\n    weights: {name}\n```'
    )
