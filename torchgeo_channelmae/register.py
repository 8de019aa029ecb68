"""A way to name this package in a configuration that otherwise needs nothing of it."""

from lightning.pytorch import Callback


class RegisterModels(Callback):
    """Does nothing; naming it imports the package, which registers the models.

    With this, TorchGeo's own tasks find ``channelmae_*`` by name::

        trainer:
          callbacks:
            - class_path: torchgeo_channelmae.register.RegisterModels
        model:
          class_path: torchgeo.tasks.Classification
          init_args:
            model: channelmae_tiny_patch16
            in_channels: 12
            weights: runs/pretrain/last.ckpt
    """
