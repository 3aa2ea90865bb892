"""State of a training: everything that a checkpoint saves and restores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.checkpoints.file_weights import bare_name
from slowfast_maskfeat.checkpoints.report import shorten
from slowfast_maskfeat.ema import WeightAverage
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import restore_optimizer
from slowfast_maskfeat.engine.restorable import check_moments, check_restorable
from slowfast_maskfeat.shapes import position_grid
from slowfast_maskfeat.tasks.base import Task, unwrap


@dataclass
class TrainState:
    """State that training changes.

    Attributes:
        model: on its device, wrapped or not.
        task: with its own state.
        stepper: holds the optimizer.
        scaler: of fp16 training; disabled otherwise.
        average: averaged weights, or None.
        epoch: number of finished epochs.
        step: number of finished steps of the current epoch.
        checkpoint: file that this state was saved to or restored from; None after another step.
        config: the configuration as YAML text, saved with the checkpoint.
        class_names: in the order of the labels, or empty.
        data: training data: the annotation file with its hash, the decoders with their versions.
        resumed: state of the train loop from a checkpoint, by name.
    """

    model: nn.Module
    task: Task
    stepper: GradientStep
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None
    epoch: int = 0
    step: int = 0
    checkpoint: Path | None = None
    config: str = ""
    class_names: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    resumed: dict[str, Any] = field(default_factory=dict)

    @property
    def bare(self) -> nn.Module:
        """The model without wrappers, with the published parameter names."""
        return unwrap(self.model)

    def payload(self, **further: Any) -> dict[str, Any]:
        """Return the content of a checkpoint; every process must call it.

        Published names have their published meaning: `epoch` is the index, from 0, of the last
        finished epoch.

        Args:
            further: state of the train loop, such as its meters.
        """
        return {
            "epoch": self.epoch - 1,
            "step": self.step,
            **self.weights(),
            "optimizer_state": self.stepper.optimizer.state_dict(),
            "scaler_state": self.scaler.state_dict(),
            "random_states": distributed.gather_objects(_random_state()),
            "loop_state": further,
            "cfg": self.config,
            "class_names": list(self.class_names),
            "data": dict(self.data),
        }

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its averaged weights, if there are any."""
        return nullcontext() if self.average is None else self.average.swapped(self.bare)

    def weights(self) -> dict[str, Any]:
        """Return the part of a checkpoint that other trainings and probes load."""
        return {
            "model_state": self.bare.state_dict(),
            "average_state": self.average.state_dict() if self.average else None,
            # Grid of the position tables; a model of another size resizes them from it.
            "token_grid": list(position_grid(self.bare) or ()),
            "task_state": self.task.state_dict(),
            "teacher_prefix": self.task.teacher_prefix,
        }

    def restore(self, payload: Mapping[str, Any], source: str) -> None:
        """Restore a checkpoint, so that training continues as if it had not been interrupted.

        Args:
            payload: result of `payload`, or a published checkpoint (without the step of an epoch
                and the random states); see `is_resumable`.
            source: path of the checkpoint, for messages.

        Raises:
            ValueError: the checkpoint has another model or optimizer, or no state of a training.
        """
        try:
            if not is_resumable(payload):
                raise ValueError("it must have model_state, optimizer_state and epoch")
            weights = _own_names(payload["model_state"])
            _check_fit(weights, self.bare.state_dict())
            check_restorable(payload, self.bare)
            self.task.load_state_dict(payload.get("task_state") or {})
            restore_optimizer(self.stepper.optimizer, payload["optimizer_state"])
        except (KeyError, ValueError, RuntimeError) as error:  # the last from load_state_dict
            raise ValueError(
                f"{source}: can't resume with this configuration: {error}; set another OUTPUT_DIR, "
                "there with TRAIN.CHECKPOINT_FILE_PATH and TRAIN.CHECKPOINT_EPOCH_RESET True if "
                "training should start from these weights"
            ) from error
        self.bare.load_state_dict(weights)
        if self.scaler.is_enabled() and payload.get("scaler_state"):
            self.scaler.load_state_dict(payload["scaler_state"])
        if self.average is not None:
            if payload.get("average_state"):
                self.average.load_state_dict(payload["average_state"])
            else:  # the run had none until now: it starts at the restored weights
                self.average = WeightAverage(self.bare, self.average.decay)
        self.epoch = payload["epoch"] + 1
        self.step = payload.get("step", 0)
        self.checkpoint = Path(source)
        self.resumed = payload.get("loop_state") or {}
        states = payload.get("random_states") or []
        if len(states) == distributed.world_size():
            _set_random_state(states[distributed.rank()], source)
        check_moments(self.stepper.optimizer, source)

    def check_batches(self, batch_size: int) -> None:
        """Check that a resumed epoch goes on with batches of the size that it began with.

        Args:
            batch_size: clips of a step, summed over all processes.

        Raises:
            ValueError: its finished steps had another size, so that clips would be left out or
                repeated.
        """
        before = (self.resumed.get("batches") or {}).get("size", batch_size)
        if self.step and before != batch_size:
            raise ValueError(
                f"TRAIN.BATCH_SIZE must give steps of {before} clips, as the {self.step} steps of "
                f"this epoch before the checkpoint had, got {batch_size}; another size needs a "
                "checkpoint of the end of an epoch"
            )


def is_resumable(payload: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint has the state of a training, not only weights."""
    return (
        isinstance(payload.get("model_state"), Mapping)
        and isinstance(payload.get("optimizer_state"), Mapping)
        and len(payload["optimizer_state"]) > 0
        and isinstance(payload.get("epoch"), int)
    )


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers, and the fixed HOG filters of published files."""
    cleaned = {bare_name(name): weight for name, weight in weights.items()}
    return {name: weight for name, weight in cleaned.items() if not name.startswith("hogs.")}


def _check_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Check that weights have the names and shapes of a model's.

    Raises:
        ValueError: some differ; the message is short even if many do.
    """
    both = [name for name in own if name in weights]
    shapes = [name for name in both if weights[name].shape != own[name].shape]
    kinds = [name for name in both if not _are_alike(weights[name], own[name])]
    differences = {
        "lacks": [name for name in own if name not in weights],
        "has additional": [name for name in weights if name not in own],
        "has other shapes of": shapes,
        "has quantized, sparse or other numbers in": kinds,
    }
    texts = [f"it {how} {shorten(names)}" for how, names in differences.items() if names]
    if texts:
        raise ValueError("; ".join(texts))


def _are_alike(weight: Tensor, own: Tensor) -> bool:
    """Whether both are dense, and both of floating-point numbers or both not."""
    same_kind = weight.is_floating_point() == own.is_floating_point()
    return same_kind and weight.layout is torch.strided and not weight.is_quantized


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: Mapping[str, Any], source: str) -> None:
    try:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{source}: its 'random_states' can't be restored: {error}") from error
