"""Checkpoints are written whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import Any, override

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all.

    The file is written under another name in the same folder, flushed to the disk and
    renamed, so that a kill at any moment leaves the old checkpoint or the new one. A
    killed write leaves a ``.part`` file, which the next save overwrites.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None
    ) -> None:
        """Save a checkpoint.

        Args:
            checkpoint: What to save.
            path: Where to; anything but a local path is left to Lightning.
            storage_options: Refused, as by Lightning.

        Raises:
            OSError: If the disk refuses; tells which older checkpoint is still whole.
        """
        if storage_options is not None or '://' in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f'{target.name}.part')
        try:
            with part.open('wb') as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException as error:
            written = part.stat().st_size if part.exists() else 0
            part.unlink(missing_ok=True)
            # When the disk is full, torch.save raises another error on the way out.
            refused = error if isinstance(error, OSError) else error.__context__
            if isinstance(refused, OSError):
                raise OSError(_refusal(target, refused, written)) from error
            raise


def step_of(path: _PATH) -> int | None:
    """Return a checkpoint's number of steps, None where it can't be read.

    Args:
        path: The checkpoint; its tensors are not read.
    """
    try:
        saved = torch.load(path, map_location='meta', weights_only=True, mmap=True)
        return int(saved['global_step'])
    except Exception:  # whatever it is, to look for a good one goes on
        return None


def _refusal(target: Path, error: OSError, written: int) -> str:
    """Say what the disk refused, and what there is to go on with."""
    free = shutil.disk_usage(target.parent).free / 1e6
    others = [path for path in target.parent.glob('*.ckpt') if path != target]
    found = [(step_of(path), path) for path in [target, *others] if path.is_file()]
    whole = [(step, path) for step, path in found if step is not None]
    left = 'There is no earlier checkpoint in its folder: make room and start again.'
    if whole:
        step, path = max(whole, key=lambda one: one[0])
        left = (
            f'The earlier {os.path.relpath(path)} (step {step}) is still whole: make '
            f'room and go on from it with --ckpt_path.'
        )
    return (
        f'Cannot write the checkpoint {os.path.relpath(target)}: {error.strerror} '
        f'after {written / 1e6:.1f} MB; {free:.1f} MB are free. {left}'
    )
