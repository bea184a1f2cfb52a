"""What the engine and its users give to the loggers beside metrics: the config, hyperparameters, pictures, texts."""

import numpy as np
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch import loggers
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter

from runlab.config.resolvers import as_typed
from runlab.config.secrets import as_written, written_value
from runlab.tracking.loggers import MLFlowLogger


def log_config(trainer: Trainer, cfg: DictConfig) -> None:
    """Give the loggers the hyperparameters, and TensorBoard the whole config, resolved, as a text.

    What comes from the environment stays as it is typed.
    """
    parameters = hyperparameters(cfg)
    for logger in trainer.loggers:
        logger.log_hyperparams(parameters)
    log_text(trainer, "config", f"```\n{OmegaConf.to_yaml(OmegaConf.create(as_written(cfg)))}```")


def hyperparameters(cfg: DictConfig) -> dict[str, int | float | str]:
    """The values of `cfg.hyperparameters` and of what this command overrides, by their keys.

    A group stands for itself by the choice that was typed, else by its class.
    """
    overrides = as_typed(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    typed = {key.lstrip("+~"): choice for key, _, choice in (override.partition("=") for override in overrides)}
    values: dict[str, int | float | str] = {"overrides": " ".join(overrides) or "none"}
    for key in dict.fromkeys([*(cfg.hyperparameters or ()), *typed]):
        value = written_value(cfg, key)
        if isinstance(value, dict) or key == "experiment":
            value = typed.get(key) or str((value or {}).get("_target_", "none")).rpartition(".")[2]
        values[key] = value if isinstance(value, int | float | str) else str(value).lower()
    return values


def log_image(trainer: Trainer, tag: str, picture: NDArray[np.uint8]) -> None:
    """Give a picture `(H, W, 3)` uint8 to each logger that can take one, at the optimizer steps done."""
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, loggers.TensorBoardLogger):
            logger.experiment.add_image(tag, picture, step, dataformats="HWC")
        elif isinstance(logger, loggers.WandbLogger):
            logger.log_image(tag, [picture], step)
        elif isinstance(logger, MLFlowLogger):
            logger.log_image(tag, picture, step)


def log_text(trainer: Trainer, tag: str, markdown: str) -> None:
    """Give TensorBoard a text."""
    for writer in tensorboards(trainer):
        writer.add_text(tag, markdown, trainer.global_step)


def tensorboards(trainer: Trainer) -> list[SummaryWriter]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, loggers.TensorBoardLogger)]
