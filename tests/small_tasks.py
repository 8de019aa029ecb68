"""Both tasks, as small as they come, with data and a trainer for them."""

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from torchgeo_channelmae.facts import DataFacts
from torchgeo_channelmae.models.registry import register_variant
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

BANDS = ['B02', 'B08', 'VV']
SHALLOW = 'channelmae_two_blocks'

register_variant(SHALLOW, model='channelmae_tiny_patch16', depth=2)


class Patches(Dataset):
    def __init__(self, count, bands=3, size=32):
        draw = torch.Generator().manual_seed(5)
        self.images = torch.randn(count, bands, size, size, generator=draw)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        label = torch.tensor([index % 2, 1 - index % 2])
        return {'image': self.images[index], 'index': index, 'label': label}


class Data(LightningDataModule):
    """24 samples to train on, 6 to evaluate; facts only where bands are given."""

    def __init__(self, bands=None, batch_size=4, size=32, record=None, test=None):
        super().__init__()
        self.batch_size, self.test_facts = batch_size, test
        self.num_bands = len(bands or BANDS)
        if bands:
            values = torch.ones(len(bands))
            self.facts = DataFacts(tuple(bands), values, values, size, record)

    def loader(self, count):
        return DataLoader(Patches(count, self.num_bands), batch_size=self.batch_size)

    def train_dataloader(self):
        return self.loader(24)

    def val_dataloader(self):
        return self.loader(6)

    test_dataloader = predict_dataloader = val_dataloader


def trainer(folder, **kwargs):
    arguments = {
        'accelerator': 'cpu',
        'devices': 1,
        'max_epochs': 1,
        'default_root_dir': folder,
        'logger': False,
        'enable_checkpointing': False,
        'enable_progress_bar': False,
        'enable_model_summary': False,
        'num_sanity_val_steps': 0,
    }
    return Trainer(**(arguments | kwargs))


def pretraining(**kwargs):
    arguments = {
        'model': 'channelmae_tiny_patch16',
        'in_channels': 3,
        'bands': BANDS,
        'size': 32,
        'decoder_dim': 32,
        'decoder_depth': 1,
        'decoder_num_heads': 2,
        'plot_every_n_epochs': 0,
        'base_lr': 0.064,
        'warmup_epochs': 1,
    }
    return ChannelMAE(**(arguments | kwargs))


def fine_tuning(**kwargs):
    arguments = {
        'model': 'channelmae_tiny_patch16',
        'in_channels': 3,
        'bands': BANDS,
        'size': 32,
        'num_labels': 2,
        'labels': ['even', 'odd'],
        'drop_path': 0.0,
    }
    return CrossModalClassification(**(arguments | kwargs))
