"""What training finds in data is what was put there."""

import pytest
from lightning.pytorch import Trainer, seed_everything

from tests.world import write_world
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models.registry import register_variant
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

OPTICAL, RADAR = ['B02', 'B03', 'B04', 'B08'], ['VV', 'VH']
MODEL, SIZE = 'channelmae_world', 24


def train(task, root, bands, folder, epochs):
    data = BigEarthNetS1S2DataModule(
        str(root), bands=bands, size=SIZE, batch_size=32, test_groups=1
    )
    trainer = Trainer(
        accelerator='cpu',
        devices=1,
        max_epochs=epochs,
        limit_val_batches=0,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data)
    return trainer, data


def test_radar_is_learned_from_optical_weights_unless_the_sensors_share_nothing(
    tmp_path,
):
    register_variant(MODEL, 'channelmae_tiny_patch8', depth=1)
    roots = {null: write_world(tmp_path / f'{null}', 192, null=null) for null in (0, 1)}
    seed_everything(0, verbose=False)
    task = ChannelMAE(
        MODEL,
        bands=OPTICAL,
        in_channels=4,
        size=SIZE,
        decoder_dim=64,
        decoder_depth=1,
        decoder_num_heads=2,
        plot_every_n_epochs=0,
    )
    weights = tmp_path / 'pretrained.ckpt'
    train(task, roots[0], OPTICAL, tmp_path, epochs=2)[0].save_checkpoint(weights)
    gains = []
    for root in roots.values():
        task = CrossModalClassification(
            MODEL,
            bands=RADAR,
            in_channels=2,
            size=SIZE,
            weights=str(weights),
            drop_path=0.0,
            layer_decay=1.0,
            base_lr=2e-2,
            warmup_epochs=0,
        )
        trainer, data = train(task, root, RADAR, tmp_path, epochs=10)
        scores = trainer.test(task, data, verbose=False)[0]
        gains.append(scores['test_mAP_micro'] - scores['test_floor_mAP_micro'])
    assert gains[0] > 0.15
    assert gains[1] == pytest.approx(0, abs=0.06)
