"""A GPU that is not there: what runs on it is checked for where its tensors are, and for how often it waits.

Tensors on it say that they are on `cuda:0`, and hold their numbers in main memory, where every operation is done. As on a GPU,
an operation on tensors of two devices is an error, and what the host asks of the GPU's results is a synchronization, which is
counted. A copy that is not waited for arrives when its event is waited for, and not before.
"""

from __future__ import annotations

import sys
import traceback
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only
from transformers.utils import is_torch_cuda_available

CUDA, INSIDE = torch.device("cuda", 0), torch.device("privateuseone", 0)  # what Python sees, and what torch's core is told
MEMORY = 2**34  # bytes that it has
NOT_YET = 77.0  # what a copy to the host holds before it has arrived
ASKS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"}
INDEXED = {"index", "index_put_", "index_put"}
COPIES = {"_to_copy", "copy_", "copy", "to"}


class MixedDevicesError(AssertionError):
    """An operation had tensors of two devices."""


class OnGpu(torch.Tensor):
    """A tensor on the GPU that is not there."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor, gpu: FakeGpu):
        with torch.inference_mode(False):  # Torch counts the versions of a parameter's views, which such a mode's tensors lack.
            return torch.Tensor._make_wrapper_subclass(
                cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=INSIDE
            )

    def __init__(self, inner: torch.Tensor, gpu: FakeGpu):
        self.inner, self.gpu = inner, gpu
        gpu.hold(self)

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, kinds, args=(), kwargs=None):
        gpu = next(value.gpu for value in tree_flatten((args, kwargs or {}))[0] if isinstance(value, OnGpu))
        return gpu.run(func, args, kwargs or {})


class FakeGpu(TorchDispatchMode):
    """Run operations, and account for them."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """How often the host waited for all that the GPU was given: operation and line → times."""
        self.events = 0
        """How often the host waited for what the GPU had been given up to an event."""
        self.allocated = self.peak = 0
        """The bytes that are held, and the most that were."""
        self.initialized = False
        """Whether the GPU was used or initialized, before which it has no statistics."""
        self._held: Counter[int] = Counter()  # storage → tensors that have it
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []  # to the host and not there yet: the copy, its numbers
        self._arrived = 0

    @property
    def synchronizations(self) -> int:
        """How often the host waited for all that the GPU was given."""
        return self.waits.total()

    def reset(self) -> None:
        """Count from now on."""
        self.waits.clear()
        self.events, self.peak = 0, self.allocated

    def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def run(self, func, args, kwargs):
        """Do an operation on the CPU; its results are on the GPU if its tensors are, or if it names the GPU."""
        values = tree_flatten((args, kwargs))[0]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        named = [value for value in values if isinstance(value, torch.device)]
        name, own = func._schema.name.removeprefix("aten::"), [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        target = named[-1] != torch.device("cpu") if named else bool(own)
        self._check(name, args, own, [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.ndim])
        into = isinstance(args[0], OnGpu) if name == "copy_" else target
        crosses = name in COPIES and isinstance(args[name == "copy_"], OnGpu) != into
        late = crosses and _is_non_blocking(func, args, kwargs)
        if (crosses and not late) or self._asks(name, args, own):
            self.wait(name)
        wrappers = {id(tensor.inner): tensor for tensor in own}
        inner_args, inner_kwargs = tree_map(_inside, (args, kwargs))
        if name == "histc" and target:  # of integers, as a GPU has it, and a CPU has not
            out = func(inner_args[0].double(), *inner_args[1:]).to(inner_args[0].dtype)
        else:
            out = func(*inner_args, **inner_kwargs)
        if crosses and name != "copy_":
            out = out.clone()  # main memory is both sides' here
        if late and not target:
            return self._send(out)
        wrap = lambda tensor: wrappers[id(tensor)] if id(tensor) in wrappers else OnGpu(tensor, self)  # noqa: E731
        return tree_map_only(torch.Tensor, wrap, out) if target else out

    def wait(self, name: str) -> None:
        """Wait for all that the GPU was given."""
        frames = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_stack(None))
        file, line = next((file, line) for file, line in frames if "/torch/" not in file and file != __file__)
        self.waits[f"{name} at {'/'.join(Path(file).parts[-2:])}:{line}"] += 1
        self._arrive(len(self._copies))

    def _check(self, name: str, args: Any, own: list[OnGpu], others: list[torch.Tensor]) -> None:
        indices = {id(index) for index in (args[1] if name in INDEXED else ())}
        strange = [tensor for tensor in others if id(tensor) not in indices]
        if own and strange and name not in COPIES:
            raise MixedDevicesError(f"{name} has tensors on the GPU and on the CPU: {[tuple(each.shape) for each in strange]}")

    def _asks(self, name: str, args: Any, own: list[OnGpu]) -> bool:
        """Return whether an operation waits: its result is the host's, its shape depends on numbers, or it copies an index."""
        if not own:
            return False
        if name in INDEXED:
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            fills = name != "index" and len(masks) == len(args[1]) == 1 and args[2].numel() == 1  # masked_fill
            copied = any(index is not None and not isinstance(index, OnGpu) for index in args[1])
            return (bool(masks) and not fills) or copied
        return name in ASKS or (name == "repeat_interleave" and len(args) > 1 and isinstance(args[1], OnGpu))

    def _send(self, values: torch.Tensor) -> torch.Tensor:
        copy = torch.full_like(values, NOT_YET)
        self._copies.append((copy, values))
        return copy

    def _arrive(self, count: int) -> None:
        for copy, values in self._copies[self._arrived : count]:
            with torch.inference_mode():  # where tensors of either kind may be changed
                copy.copy_(values)
        self._arrived = max(self._arrived, count)

    def hold(self, tensor: OnGpu) -> None:
        """Count a tensor's memory as long as it lives."""
        self.initialized = True
        storage = tensor.inner.untyped_storage()
        self._change(storage.data_ptr(), storage.nbytes(), 1)
        self.peak = max(self.peak, self.allocated)
        weakref.finalize(tensor, self._change, storage.data_ptr(), storage.nbytes(), -1)

    def _change(self, storage: int, size: int, tensors: int) -> None:
        before = self._held[storage]
        self._held[storage] += tensors
        self.allocated += size * (bool(self._held[storage]) - bool(before))

    def init(self) -> None:
        """Stand in for torch.cuda.init."""
        self.initialized = True

    def reset_peak(self, device: torch.device | None = None) -> None:
        """Stand in for torch.cuda.reset_peak_memory_stats."""
        if not self.initialized:
            raise RuntimeError("Invalid device argument 0: did you call init?")
        self.peak = self.allocated

    def event(self, **settings: Any) -> types.SimpleNamespace:
        """Return a stand-in for torch.cuda.Event."""
        sent: list[int] = []

        def synchronize() -> None:
            self.events += 1
            self._arrive(sent[-1])

        return types.SimpleNamespace(record=lambda *stream: sent.append(len(self._copies)), synchronize=synchronize)


class _Devices(TorchFunctionMode):
    """Give torch's core the GPU that it has a guard for, and make tensors of lists in main memory first, as torch does."""

    def __torch_function__(self, func, kinds, args=(), kwargs=None):
        args, kwargs = tree_map(_named_inside, (args, kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and "device" in kwargs:
            device = kwargs.pop("device")
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnGpu):
            return torch.tensor(*args[1:], dtype=args[0].dtype).to(INSIDE)
        if func is torch.Tensor.tolist:
            return func(args[0].cpu())
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]), *args[2:])
        return func(*args, **kwargs)


def _named_inside(value: Any) -> Any:
    if isinstance(value, torch.device):
        return INSIDE if value.type == "cuda" else value
    return INSIDE if isinstance(value, str) and value.split(":")[0] == "cuda" else value


def _inside(value: Any) -> Any:
    if isinstance(value, OnGpu):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _is_non_blocking(func: Any, args: Any, kwargs: Any) -> bool:
    names = [argument.name for argument in func._schema.arguments]
    return bool(dict(zip(names, args, strict=False)).get("non_blocking") or kwargs.get("non_blocking"))


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Let torch have one GPU inside the `with` block, and yield its account."""
    _register()
    gpu = FakeGpu()
    instead = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_capability": lambda device=None: (9, 0),
        "init": gpu.init,
        "synchronize": lambda device=None: gpu.wait("synchronize"),
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (MEMORY - gpu.allocated, MEMORY),
        "memory_allocated": lambda device=None: gpu.allocated,
        "memory_reserved": lambda device=None: gpu.allocated,
        "max_memory_allocated": lambda device=None: gpu.peak,
        "reset_peak_memory_stats": gpu.reset_peak,
        "current_stream": lambda device=None: None,
        "Event": gpu.event,
    }
    with mock.patch.multiple(torch.cuda, **instead), _Devices(), gpu:
        yield gpu


def _register() -> None:
    """Tell torch's core of the GPU once a process, so that nothing changes for what runs in the process afterwards."""
    if INSIDE.type in _guards:
        return
    is_torch_cuda_available()  # It remembers its first answer.
    # The first backward pass starts a thread for each GPU, and then no forked process can run one.
    torch.ones((), requires_grad=True).backward()
    torch._C._acc.register_python_privateuseone_device_guard(_guards.setdefault(INSIDE.type, _Guard()))
    sys.modules[f"torch.{INSIDE.type}"] = types.ModuleType("torch.privateuseone")
    sys.modules[f"torch.{INSIDE.type}"]._lazy_init = lambda: None


class _Guard(torch._C._acc.DeviceGuard):
    def type_(self):
        return torch._C._autograd.DeviceType.PrivateUse1


_guards: dict[str, _Guard] = {}
