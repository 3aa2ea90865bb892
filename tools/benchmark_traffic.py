"""Count the launches and bytes of a training step on a GPU, without a GPU, for `benchmark.py`.

A step runs on fake CUDA tensors (`torch._subclasses.FakeTensorMode`): torch computes shapes and
dtypes but no values, so that the counts are the same on every machine. Tensors on the CPU, such as
masks, are real. An operation that would wait for the GPU is an error, since a fake tensor has no
value to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from benchmark_report import PHASES, Count, Counts
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from slowfast_maskfeat.clips import ClipBatch

DEVICE = torch.device("cuda", 0)
META = torch.device("meta")
CASTS, LAYOUT, FROM_HOST = "casts between dtypes", "copies for layout", "copies from the host"
FROM_PAGES = "copies from pageable memory"  # for which the CPU may wait
CONCATENATIONS, ATTENTION, MANY = "concatenations and padding", "attention", "over many tensors"
ELEMENTWISE = "elementwise"
INPUT, FORWARD, TARGET, BACKWARD, OPTIMIZER = PHASES

# Kinds of operators by their names in torch; those not listed are elementwise.
_KINDS = {
    "matrix products": "mm addmm bmm baddbmm",
    "convolutions": "convolution convolution_backward",
    ATTENTION: (
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_efficient_attention_backward"
    ),
    "layer norms": "native_layer_norm native_layer_norm_backward",
    "pooling": (
        "max_pool2d_with_indices max_pool2d_with_indices_backward "
        "max_pool3d_with_indices max_pool3d_with_indices_backward"
    ),
    LAYOUT: "clone roll",
    CONCATENATIONS: "cat stack constant_pad_nd",
    "selections": (
        "index index_select index_put index_put_ _index_put_impl_ index_add index_add_ gather "
        "scatter_add scatter_add_ embedding embedding_dense_backward slice_backward select_backward"
    ),
    "reductions": "sum mean linalg_vector_norm max amax amin all any",
    "fills": (
        "zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full zero_ fill_"
    ),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WITHOUT_KERNEL = _names(
    "empty empty_like empty_strided new_empty new_empty_strided _unsafe_view _reshape_alias "
    "set_ resize_ lift_fresh detach_"
)
_WAITING = _names("_local_scalar_dense nonzero masked_select _unique2 unique_dim equal")
_SELECTING = _names("index index_select gather embedding")
_OVERWRITING = _names("copy_ fill_ zero_ bernoulli_ uniform_ normal_ exponential_")


class WaitError(RuntimeError):
    """An operation for which the CPU would wait until the GPU has done all queued work."""


class Traffic(TorchDispatchMode):
    """Counts the operators on fake CUDA tensors while it is entered.

    A `FakeTensorMode` must be active below. Operators on CPU tensors alone run as usual and are not
    counted.

    Attributes:
        counts: by phase and kind of operator.
        phase: the current one.

    Raises:
        WaitError: an operator would wait for the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, dict[str, Count]] = {}
        self.phase = INPUT

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator, and count it."""
        if function is torch.ops.prim.device.default:
            return _device_for_torch(args[0])
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        inputs = _tensors((args, kwargs))
        is_fake = any(isinstance(x, FakeTensor) for x in inputs)
        if not is_fake and (device is None or torch.device(device).type == "cpu"):
            with _disable_current_modes():
                return function(*args, **kwargs)
        if device == META:  # from an input's device as torch knows it, see `_device_for_torch`
            kwargs["device"] = DEVICE
        name = function.overloadpacket.__name__
        if name in _WAITING:
            raise WaitError(f"{name} waits for the GPU")
        result = function(*args, **kwargs)
        outputs = _tensors(result)
        _expect_record(name, inputs, outputs)
        if any(x.device.type == "cpu" for x in outputs):
            raise WaitError(f"{name} waits for the GPU, to copy from it")
        if not (function.is_view or name in _WITHOUT_KERNEL or _is_no_copy(name, inputs, outputs)):
            num_bytes = _num_bytes(function, name, args, inputs, outputs)
            self.count(_kind(name, inputs, outputs), num_bytes)
        return result

    def count(self, kind: str, num_bytes: int) -> None:
        """Add one operator."""
        if torch._C._current_graph_task_id() != -1:
            self.phase = BACKWARD
        elif self.phase == BACKWARD:
            self.phase = OPTIMIZER
        count = self.counts.setdefault(self.phase, {}).setdefault(kind, Count())
        count.launches += 1
        count.num_bytes += num_bytes

    def watch(self, model: nn.Module) -> None:
        """Tell the forward pass of a model from what is before and after it."""

        def enter(phase: str) -> Callable[..., None]:
            return lambda *_: setattr(self, "phase", phase)

        model.register_forward_pre_hook(enter(FORWARD))
        model.register_forward_hook(enter(TARGET))


class FusedAttention(TorchFunctionMode):
    """Has attention counted as the fused kernel that CUDA has for it.

    A build of torch without CUDA would choose the form with the matrix of scores.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run one function."""
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention or not isinstance(args[0], FakeTensor):
            return function(*args, **kwargs)
        return _fused_attention(*args, **kwargs)


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *,
    scale: float | None = None,
) -> Tensor:
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    operators = torch.ops.aten
    if attn_mask is None and query.dtype != torch.float32:
        flash = operators._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, False, scale=scale)[0]
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    efficient = operators._scaled_dot_product_efficient_attention
    keeps_sums = torch.is_grad_enabled()
    return efficient(query, key, value, attn_mask, keeps_sums, dropout_p, scale=scale)[0]


class FakeGpu:
    """A GPU for modules and optimizers whose steps are counted."""

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        # Nodes of the graph that accumulate gradients. torch must create them apart from a step,
        # see `_device_for_torch`, and needs them again in it.
        self._accumulators: list[object] = []

    @contextmanager
    def _running(self) -> Iterator[Traffic]:
        """Context in which CUDA tensors are fake, and autocast can be enabled for them."""
        with ExitStack() as stack:
            for name, value in (
                ("amp.common.amp_definitely_not_available", False),
                ("is_bf16_supported", True),
            ):
                stack.enter_context(mock.patch(f"torch.cuda.{name}", return_value=value))
            stack.enter_context(mock.patch.object(Tensor, "pin_memory", _page_locked))
            stack.enter_context(self._mode)
            stack.enter_context(FusedAttention())
            yield stack.enter_context(Traffic())

    def move(self, module: nn.Module) -> None:
        """Replace parameters and buffers of a module by fake ones."""
        made: dict[int, Tensor] = {}
        with self._running():
            for part in module.modules():
                for tensors in (part._parameters, part._buffers):
                    for name, old in tensors.items():
                        if old is None or isinstance(old, FakeTensor):
                            continue
                        if id(old) not in made:
                            made[id(old)] = self._fake_of(old)
                        tensors[name] = made[id(old)]

    def _fake_of(self, old: Tensor) -> Tensor:
        new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device=DEVICE)
        if not isinstance(old, nn.Parameter):
            return new
        parameter = nn.Parameter(new, old.requires_grad)
        if old.requires_grad:
            self._accumulators.append(parameter.expand_as(parameter).grad_fn)
        return parameter

    def pin(self, batch: ClipBatch) -> ClipBatch:
        """Copy a batch to page-locked memory, as a loader does."""
        with self._running():
            return batch.pin_memory()

    def make_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer allocate its state, as in its first step."""
        with self._running():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def count(self, step: Callable[[int], object], model: nn.Module) -> Counts:
        """Count one step.

        Args:
            step: function of the number of the step.
            model: whose forward pass is a phase of it.

        Raises:
            WaitError: the step waits for the GPU.
        """
        with self._running() as traffic:
            traffic.watch(model)
            step(0)
        return traffic.counts


def _page_locked(tensor: Tensor) -> Tensor:
    """Return a tensor that counts as one in page-locked memory, which needs a build for CUDA."""
    if hasattr(tensor, "is_page_locked"):
        return tensor
    copy = tensor.clone()
    copy.is_page_locked = True  # type: ignore[attr-defined]
    return copy


def _device_for_torch(tensor: Tensor) -> torch.device:
    """Device of a fake tensor as the C++ code of torch sees it.

    It must be CUDA where autocast looks for tensors to cast, and must not be where autograd records
    the device of a result, for which a build without CUDA has no guard. Inside an operator that
    autocast has wrapped, the first to look at a new result is autograd.
    """
    if getattr(tensor, "is_to_be_recorded", False):
        tensor.is_to_be_recorded = False  # type: ignore[attr-defined]
        return META
    torch.autocast_increment_nesting()
    is_in_context = torch.autocast_decrement_nesting() > 0
    is_wrapped = is_in_context and not torch.is_autocast_enabled("cuda")
    return DEVICE if is_wrapped else META


def _expect_record(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    if torch.is_grad_enabled() and name != "detach" and any(x.requires_grad for x in inputs):
        for output in outputs:
            output.is_to_be_recorded = True  # type: ignore[attr-defined]


def _is_no_copy(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Whether torch copies only because it takes the device of a fake tensor for another one."""
    if name != "_to_copy":
        return False
    source, target = inputs[0], outputs[0]
    is_same = source.dtype == target.dtype and source.device == target.device
    return is_same and source.stride() == target.stride()


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _kind(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    if name in ("_to_copy", "copy_"):
        source, target = inputs[-1], outputs[0]
        if source.device.type == "cpu":
            return FROM_HOST if hasattr(source, "is_page_locked") else FROM_PAGES
        return LAYOUT if source.dtype == target.dtype else CASTS
    if name.startswith(("_foreach", "_fused")):
        return MANY
    return _KIND_OF.get(name, ELEMENTWISE)


def _num_bytes(
    function: Any,
    name: str,
    args: Sequence[Any],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
) -> int:
    read, written = list(inputs), list(outputs)
    if name in _OVERWRITING:
        read = read[1:]
    if name in _SELECTING:
        read[0] = written[0]
    if not written:  # in place, over lists of tensors
        schema = function._schema.arguments
        written = [
            x
            for argument, value in zip(schema, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            for x in _tensors(value)
        ]
    return sum(_size(x) for x in (*read, *written))


def _size(tensor: Tensor) -> int:
    """Bytes of the different values of a tensor."""
    count = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride else min(length, 1)
    return count * tensor.element_size()
