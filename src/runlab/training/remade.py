"""Layers that `setup` or `configure_model` makes anew for each stage."""

from typing import Any

from lightning import Callback, LightningModule, Trainer


class SameWeights(Callback):
    """Gives them the weights of those that they take the place of, so that what is tested is what was restored.

    Lightning calls both hooks again before each stage. With `fit` also before the training, which then begins with
    restored weights; a resumed training gets its own.
    """

    def __init__(self, fit: bool) -> None:
        self.fit = fit
        self.held: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        self.held = dict(_weights(pl_module)) if self.fit or stage != "fit" else {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is None:
            self._put_back(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._put_back(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._put_back(pl_module)

    def _put_back(self, module: LightningModule) -> None:
        held, self.held = self.held, {}
        for name, new in _weights(module):
            if (old := held.get(name)) is not None and old is not new:
                new.data.copy_(old.data)


def _weights(module: LightningModule) -> list[tuple[str, Any]]:
    return [*module.named_parameters(), *module.named_buffers()]
