"""Both tasks, as small as they come, and data for them."""

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

BANDS = ['B02', 'B08', 'VV']


class Patches(Dataset):
    def __init__(self, count):
        draw = torch.Generator().manual_seed(5)
        self.images = torch.randn(count, 3, 32, 32, generator=draw)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        label = torch.tensor([index % 2, 1 - index % 2])
        return {'image': self.images[index], 'index': index, 'label': label}


class Data(LightningDataModule):
    """Six batches of four in training; a last batch of two in validation."""

    def train_dataloader(self):
        return DataLoader(Patches(24), batch_size=4)

    def val_dataloader(self):
        return DataLoader(Patches(6), batch_size=4)


def pretraining(**kwargs):
    return ChannelMAE(
        model='channelmae_tiny_patch16',
        in_channels=3,
        bands=BANDS,
        size=32,
        decoder_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
        plot_every_n_epochs=0,
        base_lr=0.064,
        warmup_epochs=1,
        **kwargs,
    )


def fine_tuning():
    return CrossModalClassification(
        model='channelmae_tiny_patch16',
        in_channels=3,
        bands=BANDS,
        size=32,
        num_labels=2,
        labels=['even', 'odd'],
        drop_path=0.0,
    )
