"""Lightning's trainer, without what a benchmark does not want to hear or keep."""

from typing import Any

from lightning.pytorch import Trainer


def make_trainer(**options: Any) -> Trainer:
    """Make a trainer on CPUs that logs, saves and shows nothing.

    Args:
        **options: Further arguments of the trainer.
    """
    return Trainer(
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
