"""Have a Lightning Trainer use resumable loaders in place of what a user's `*_dataloader` methods return."""

from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.data import _auto_add_worker_init_fn
from lightning.fabric.utilities.types import _Stateful
from lightning.pytorch.trainer.connectors.data_connector import _DataConnector, _worker_check
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from torch import Tensor
from torch.utils.data import Dataset

from runlab.config.messages import UserError
from runlab.data.fetching import is_ordinary, name_of
from runlab.data.loaders import ResumableLoader, SeededIterable
from runlab.data.wrapper import LoaderWrapper


class ResumableDataConnector(_DataConnector):
    """Lightning's part that prepares each loader of each stage, once the user's object has made it."""

    seed: int

    def _prepare_dataloader(self, dataloader: object, shuffle: bool, mode: RunningStage) -> object:
        if isinstance(dataloader, LoaderWrapper):  # in a CombinedLoader of the user's, which an earlier stage has seen
            dataloader = dataloader._user_loader
        _check_loader(dataloader, mode)
        # In Lightning, use_distributed_sampler=true shares the data by its own rules, and predicting notes the indices.
        loader: Any = super()._prepare_dataloader(dataloader, shuffle=shuffle, mode=mode)
        if isinstance(loader, _Stateful):
            return loader
        # What Lightning does with a DataLoader after this, it would not do with what stands in for one.
        _worker_check(self.trainer, loader, name=f"{mode.dataloader_prefix}_dataloader")
        is_training = mode == RunningStage.TRAINING
        if not is_ordinary(loader):
            _auto_add_worker_init_fn(loader, self.trainer.global_rank)
            return SeededIterable(loader, self.seed, self._progress, training=is_training)
        shares = self.trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        rank, world = shares["rank"], shares["num_replicas"]
        return ResumableLoader(loader, self.seed, self._progress, rank, world, training=is_training)

    def _progress(self, loader: LoaderWrapper) -> tuple[int, int, int]:
        """Where the Trainer is with a loader: a `Progress`.

        Outside of `fit` it is epoch 0: a test draws the same after the training as from a checkpoint.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            return 0, 0, 0
        loop: Any = self.trainer.fit_loop
        epoch = loop.epoch_progress.current.processed
        training = [] if loop._combined_loader is None else loop._combined_loader.flattened
        if loader not in training:  # it is for validation
            return epoch, 0, 0
        return epoch, loop.epoch_loop.batch_progress.current.ready, training.index(loader)


def _check_loader(loader: Any, mode: RunningStage) -> None:
    """`UserError` for what is no loader, or could be gone through in the first epoch only."""
    name, kind = f"{mode.dataloader_prefix}_dataloader", type(loader)
    if isinstance(loader, Tensor) or (isinstance(loader, Dataset) and not hasattr(kind, "__iter__")):
        raise UserError(f"{name}: a {kind.__name__} is no loader of batches; put it into a DataLoader")
    is_spent = hasattr(loader, "__next__") and kind.__module__ in ("builtins", "itertools")
    if is_spent and mode not in (RunningStage.TESTING, RunningStage.PREDICTING):
        raise UserError(
            f"{name}: a {kind.__name__} has batches for the first epoch only; return a DataLoader, or an object whose"
            " __iter__ begins anew"
        )


def use_resumable_loaders(trainer: pl.Trainer, seed: int) -> None:
    """Make every loader of a Trainer depend on `seed` and the epoch alone, shared exactly and, if possible, resumable.

    To be called before `fit`, `validate`, `test` or `predict`. Nothing is set on the user's objects.
    """
    connector = ResumableDataConnector(trainer)
    vars(connector).update(vars(trainer._data_connector), seed=seed)
    trainer._data_connector = connector


def unresumable(trainer: pl.Trainer) -> list[str]:
    """Name the training loaders that cannot be resumed within an epoch, by class; known once they are set up."""
    combined = trainer.fit_loop._combined_loader
    wrappers = [] if combined is None else combined.flattened
    return [name_of(wrapper._user_loader) for wrapper in wrappers if isinstance(wrapper, SeededIterable)]
