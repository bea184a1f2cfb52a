"""What a run keeps in each checkpoint to be resumed by, and what of it a resumed run takes up."""

import ast
import inspect
import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, Callback
from lightning.pytorch.utilities.model_helpers import is_overridden

from runlab.config.messages import Diverged, UserError
from runlab.config.secrets import masked_values
from runlab.data.connector import unresumable
from runlab.training.logged_values import epoch_metrics
from runlab.training.schedulers import step_plateau


class RunState(Callback):
    """Keeps in each checkpoint what it scored and how it can be resumed; never saves weights that are not finite.

    `metrics` are what the checkpoint's epoch had logged when it was saved, plain floats by their logged names: no value
    of an earlier epoch. `run` says whether a run can be resumed from there (`resumable`) and, where early stopping or a
    timer has ended the training, with which settings (`stopped_by`): with the same ones a resumed run goes straight to
    the test.
    `configured` holds each callback with the arguments that its config has: one that was changed since the checkpoint
    wins over the state in it.
    `limits` are the trainer's options that decide when a run is stopped.
    """

    def __init__(
        self, configured: dict[str, tuple[Callback, dict[str, Any]]], limits: dict[str, Any], hint: str
    ) -> None:
        self.configured, self.limits, self.hint = configured, limits, hint
        self.settings = {name: masked_values(arguments) for name, (_, arguments) in configured.items()}  # as saved
        self.resumed: dict[str, Any] = {}  # the checkpoint that is resumed
        self.groups: list[int] = []  # of parameters, of each optimizer, when training began

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        # Lightning restores weights before it gives the module its precision: 64 bits would be cut to 32.
        trainer.precision_plugin.convert_module(pl_module)
        self.accumulate_grad_batches = trainer.accumulate_grad_batches

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint["state_dict"]  # a buffer may be infinite on purpose, as a causal mask is
        if not all(weights[name].isfinite().all() for name, _ in pl_module.named_parameters() if name in weights):
            raise Diverged(f"weights are not finite at optimizer step {trainer.global_step}; {self.hint}")
        groups = [len(optimizer.param_groups) for optimizer in trainer.optimizers]
        added = groups != self.groups and not any(isinstance(c, BaseFinetuning) for c in trainer.callbacks)  # type: ignore[attr-defined]
        if self.groups and added and trainer.is_global_zero:
            text = "a hook has given the optimizer another group of parameters, so this run cannot be resumed from here"
            print(f"{text} on; give it all at once, and freeze them by requires_grad", file=sys.stderr)
            self.groups = []
        checkpoint["metrics"] = {name: value.item() for name, value in epoch_metrics(trainer).items()}
        epochs: Any = trainer.fit_loop.epoch_progress.current
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        # The module's own hook comes after the callbacks', and is not called again.
        cut = batches.completed < batches.processed and is_overridden("on_train_batch_end", pl_module)
        cut |= trainer.validating and is_overridden("on_validation_end", pl_module)
        started = epochs.processed < epochs.ready
        inside_epoch = started and not trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        checkpoint["run"] = {
            "stopped_by": self._stopping(pl_module) if trainer.should_stop else None,
            "arguments": {callback.state_key: self.settings[name] for name, (callback, _) in self.configured.items()},
            "resumable": not (cut or (inside_epoch and unresumable(trainer))),
            "epoch_done": epochs.processed == epochs.ready,
            "accumulate_grad_batches": [self.accumulate_grad_batches, trainer.accumulate_grad_batches],
            "frozen": [name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad],
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.resumed = checkpoint
        if checkpoint["run"]["stopped_by"] == self._stopping(pl_module):
            trainer.should_stop = True
        self._check_same(checkpoint["callbacks"])
        saved = checkpoint["run"].get("arguments", {})
        for name, (callback, arguments) in self.configured.items():
            state, before = (found.get(callback.state_key, {}) for found in (checkpoint["callbacks"], saved))
            now = self.settings[name]
            changed = [key for key in state if key in arguments and before.get(key, ...) != now[key]]
            state.update({key: arguments[key] for key in changed})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        checkpoint, self.resumed = self.resumed, {}
        self.groups = [len(optimizer.param_groups) for optimizer in trainer.optimizers]
        if not checkpoint:
            return
        run, parameters = checkpoint["run"], pl_module.named_parameters()
        for name, parameter in parameters:
            parameter.requires_grad_(name not in run["frozen"])
        configured, accumulated = run["accumulate_grad_batches"]
        if run["epoch_done"]:  # Lightning steps ReduceLROnPlateau after the checkpoint
            step_plateau(trainer, checkpoint["epoch"])
        elif trainer.accumulate_grad_batches == configured:  # else another one is wanted from now on
            # What a callback has set when the epoch began: Lightning does not call it again within the epoch.
            trainer.accumulate_grad_batches = accumulated

    def _check_same(self, saved: dict[str, Any]) -> None:
        """`UserError` where a callback's state would be dropped, as an option is another that Lightning knows it by."""
        present = {callback.state_key: name for name, (callback, _) in self.configured.items()}
        for key in saved.keys() - present:
            kind, options = _options(key)
            for other in present.keys() - saved.keys():
                if _options(other)[0] == kind:
                    changed = {name: value for name, value in options.items() if _options(other)[1].get(name) != value}
                    old = ", ".join(f"{name}={value}" for name, value in changed.items())
                    raise UserError(
                        f"callbacks.{present[other]}: the run to resume has {old} here, which cannot be changed on a"
                        " resume; leave it as it was, or begin a new run with ckpt_path=.../checkpoints/best.ckpt"
                    )

    def _stopping(self, pl_module: LightningModule) -> dict[str, Any]:
        """What decides when a run is stopped: the settings of the callbacks that can do so, and the limits.

        A callback of whose class no code names `should_stop` cannot; where nobody's does, someone stops by way of
        another object, and all callbacks count.
        """
        able = {name: self.settings[name] for name, (callback, _) in self.configured.items() if _can_stop(callback)}
        return {"callbacks": able if able or _can_stop(pl_module) else self.settings} | self.limits


def _options(state_key: str) -> tuple[str, dict[str, Any]]:
    """A callback's kind and what Lightning's name for its state has of its options: `Timer{'interval': 'step'}`."""
    kind, brace, options = state_key.partition("{")
    try:
        return kind, ast.literal_eval(brace + options) if brace else {}
    except (ValueError, SyntaxError):  # an option that is no plain value
        return kind, {"options": options}


def _can_stop(owner: object) -> bool:
    functions = [value for part in (owner, *type(owner).__mro__) for value in vars(part).values()]
    codes = [getattr(inspect.unwrap(function), "__code__", None) for function in functions if callable(function)]
    return any(code is not None and "should_stop" in code.co_names for code in codes)
