"""Copies between main memory and a GPU that do not make Python wait for what the GPU has been given to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of main memory on the device where a model runs.

    On its way to a GPU it lies in page-locked memory: a copy from elsewhere waits for everything that the GPU has yet to do.
    """
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Arriving:
    """Results on their way to main memory.

    Args:
        values: The results, where the model ran.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._arrival: torch.cuda.Event | None = None
        if values.is_cuda:
            import torch

            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record(torch.cuda.current_stream(values.device))

    def wait(self) -> torch.Tensor:
        """Return the results in main memory; what the GPU was given after them is not waited for."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._values
