"""Copies to a GPU and back that nothing waits for, and the GPU that tests have where there is none."""

from __future__ import annotations

import psutil
import pytest
import torch
from transformers.utils import is_torch_cuda_available

from bitsure.scoring.device_copies import Arriving, send
from tests.builders.fake_gpu import MixedDevicesError, fake_gpu

CUDA = torch.device("cuda")


def test_on_a_cpu_nothing_is_copied():
    values = torch.arange(3.0)
    assert send(values, values.device).data_ptr() == values.data_ptr() == Arriving(values).wait().data_ptr()


def test_results_are_there_when_they_were_waited_for_and_nothing_else_was():
    with fake_gpu() as gpu:
        results = send(torch.arange(3.0), CUDA) * 2
        arriving = Arriving(results)
        results += 1  # what the GPU is given afterwards changes nothing
        assert arriving._values.tolist() != [0, 2, 4]
        assert arriving.wait().tolist() == [0, 2, 4]
        assert (gpu.synchronizations, gpu.events) == (0, 1)


def test_an_operation_on_two_devices_is_an_error_and_what_waits_is_counted():
    with fake_gpu() as gpu:
        here, there = torch.arange(3.0), torch.arange(3.0).to(CUDA)
        assert there.is_cuda and (there + 1).device.type == "cuda" and gpu.synchronizations == 1
        for operation in (lambda: here + there, lambda: torch.cat([here, there]), lambda: there.index_select(0, here.long())):
            with pytest.raises(MixedDevicesError):
                operation()
        waiting = (lambda: there.sum().item(), lambda: there.tolist(), lambda: bool(there.any()), lambda: there[there > 0])
        for number, operation in enumerate(waiting, 2):
            operation()
            assert gpu.synchronizations == number
        allocated = gpu.allocated
        more = torch.zeros(1000, device=CUDA)
        assert gpu.allocated == allocated + 4000 and gpu.peak >= gpu.allocated
        del more
        assert gpu.allocated == allocated


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU of its own")
def test_nothing_of_the_gpu_is_left_behind():
    with fake_gpu() as gpu:
        torch.ones(3, device=CUDA)
    threads = psutil.Process().num_threads()
    torch.ones((), requires_grad=True).backward()  # the first one starts a thread for each GPU
    assert psutil.Process().num_threads() == threads and gpu.allocated == 0
    assert not torch.cuda.is_available() and not is_torch_cuda_available()
    assert not torch.accelerator.is_available() and torch.ones(3).device.type == "cpu"
    with pytest.raises((RuntimeError, AssertionError)):
        torch.ones(3, device=CUDA)
