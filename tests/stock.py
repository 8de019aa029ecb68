"""What tests of TorchGeo's own tasks need: data of their kind, and a witness."""

from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback
from torch import Tensor

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models import ChannelViT


class StockDataModule(BigEarthNetS1S2DataModule):
    """The sample, with a mask of each image's bright pixels, at one or two dates."""

    def __init__(self, dates: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dates = dates

    def on_after_batch_transfer(self, batch, dataloader_idx):
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        image = batch['image']
        batch['mask'] = (image[:, 0] > 0).long()
        if self.dates > 1:  # (B, T, C, H, W)
            batch['image'] = torch.stack([image, image.flip(-1)], dim=1)
            batch['mask'] = batch['mask'][:, None]
        return batch


class Witness(Callback):
    """Keep what the encoders of the last task were before and after training."""

    before: ClassVar[list[dict[str, Tensor]]] = []
    after: ClassVar[list[dict[str, Tensor]]] = []
    steps: ClassVar[int] = 0

    def on_fit_start(self, trainer, pl_module):
        Witness.before = encoders_of(pl_module)

    def on_train_end(self, trainer, pl_module):
        Witness.after, Witness.steps = encoders_of(pl_module), trainer.global_step


def encoders_of(task):
    return [
        {name: value.clone() for name, value in module.state_dict().items()}
        for module in task.modules()
        if isinstance(module, ChannelViT)
    ]
