"""Everything that training changes, in one place: so a checkpoint can hold it and give it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.checkpoints.report import shorten
from slowfast_maskfeat.checkpoints.transfer import bare_name
from slowfast_maskfeat.ema import WeightAverage
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.tasks.base import Task, unwrap


@dataclass
class TrainState:
    """What training changes.

    Attributes:
        model: on its device, wrapped or not.
        task: its own state included.
        stepper: holds the optimizer.
        scaler: of fp16 training; disabled otherwise.
        average: averaged weights, or None.
        epoch: finished epochs.
        step: finished steps of the epoch under way.
        config: the configuration as YAML text, for the record.
        class_names: in the order of the labels, or empty.
        data: what is trained on: the list with its hash, the decoders with their versions.
        resumed: further state of a checkpoint that the loop takes over, by name.
    """

    model: nn.Module
    task: Task
    stepper: GradientStep
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None
    epoch: int = 0
    step: int = 0
    config: str = ""
    class_names: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    resumed: dict[str, Any] = field(default_factory=dict)

    @property
    def bare(self) -> nn.Module:
        """The model without wrappers, with the published parameter names."""
        return unwrap(self.model)

    def payload(self, **further: Any) -> dict[str, Any]:
        """The content of a checkpoint; every process must call it.

        The published names stand for what they stand for there: `epoch` is the number, from 0, of
        the last finished epoch.

        Args:
            further: state of the loop, such as its meters.
        """
        return {
            "epoch": self.epoch - 1,
            "step": self.step,
            "model_state": self.bare.state_dict(),
            # What position tables are of: a model of another size resizes them by it.
            "token_grid": list(getattr(self.bare, "configured_grid", ())),
            "optimizer_state": self.stepper.optimizer.state_dict(),
            "scaler_state": self.scaler.state_dict(),
            "average_state": self.average.state_dict() if self.average else None,
            "task_state": self.task.state_dict(),
            "teacher_prefix": self.task.teacher_prefix,
            "random_states": distributed.gather_objects(_random_state()),
            "loop_state": further,
            "cfg": self.config,
            "class_names": list(self.class_names),
            "data": dict(self.data),
        }

    def restore(self, payload: Mapping[str, Any], source: str) -> None:
        """Go on from a checkpoint as if nothing had happened.

        Args:
            payload: what `payload` gave, or a published checkpoint (which lacks the position inside
                an epoch and the random states); see `is_resumable`.
            source: its path, for messages.

        Raises:
            ValueError: the checkpoint is of another model or optimizer.
        """
        try:
            if not is_resumable(payload):
                raise ValueError("it holds no training, at most weights")
            weights = _own_names(payload["model_state"])
            _check_fit(weights, self.bare.state_dict())
            self.task.load_state_dict(payload.get("task_state") or {})
            self.stepper.optimizer.load_state_dict(payload["optimizer_state"])
        except (KeyError, ValueError, RuntimeError) as error:  # the last from load_state_dict
            raise ValueError(
                f"{source}: can't be resumed with this configuration: {error}; give another "
                "OUTPUT_DIR, set TRAIN.AUTO_RESUME False, or take only its weights by "
                "TRAIN.CHECKPOINT_FILE_PATH with TRAIN.CHECKPOINT_EPOCH_RESET True"
            ) from error
        self.bare.load_state_dict(weights)
        if self.scaler.is_enabled() and payload.get("scaler_state"):
            self.scaler.load_state_dict(payload["scaler_state"])
        if self.average is not None and payload.get("average_state"):
            self.average.load_state_dict(payload["average_state"])
        self.epoch = payload["epoch"] + 1
        self.step = payload.get("step", 0)
        self.resumed = payload.get("loop_state") or {}
        states = payload.get("random_states") or []
        if len(states) == distributed.world_size():
            _set_random_state(states[distributed.rank()])


def is_resumable(payload: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of a training that can go on, not of weights alone."""
    return (
        isinstance(payload.get("model_state"), Mapping)
        and isinstance(payload.get("optimizer_state"), Mapping)
        and isinstance(payload.get("epoch"), int)
    )


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put in front, and the fixed HOG filters of published files."""
    cleaned = {bare_name(name): weight for name, weight in weights.items()}
    return {name: weight for name, weight in cleaned.items() if not name.startswith("hogs.")}


def _check_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raises ValueError, short however many entries differ, unless all are there in their shape."""
    shapes = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    differences = {
        "lacks": [name for name in own if name not in weights],
        "has besides": [name for name in weights if name not in own],
        "has in another shape": shapes,
    }
    texts = [f"it {what} {shorten(names)}" for what, names in differences.items() if names]
    if texts:
        raise ValueError("; ".join(texts))


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
