"""`kdmodels.engines.devices`: on ZeroGPU only a process that was lent a GPU may use it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdmodels.engines import devices
from page.api import explain, on_gpu

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("there", [True, False])
def test_without_zero_gpu_torch_decides(monkeypatch, there):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert devices.has_cuda() is there
    assert on_gpu(explain) is explain


def test_on_zero_gpu_it_takes_a_loan(monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not devices.has_cuda()
    with devices.lent():
        assert devices.has_cuda()
    assert not devices.has_cuda()


FORKED = """
import os, threading
from kdmodels.predict import FairLock

lock, held, over = FairLock(), threading.Event(), threading.Event()

def hold():
    with lock:
        held.set()
        over.wait(60)

threading.Thread(target=hold, daemon=True).start()
assert held.wait(60)
if not (child := os.fork()):
    os._exit(1 if lock.locked() else 0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0 and lock.locked()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_can_take_a_lock_that_is_held_here():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
