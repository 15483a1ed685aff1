"""Where tests find the reference outputs and the real images, and how they skip without them."""

import os
from pathlib import Path

# Before torch is imported, for the processes that tests start too: tests side by side that each take all cores are
# many times slower than one after the other.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest
import torch

SHARED = Path(os.environ.get("PIIP_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds or leaves anything in the user's own cache."""
    if "PIIP_HOME" not in os.environ:
        monkeypatch.setenv("PIIP_HOME", str(tmp_path_factory.getbasetemp() / "piip-home"))


def shared_folder(*parts: str) -> Path:
    """A folder of reference or real data; skips the calling test where it is missing."""
    folder = SHARED.joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"needs {'/'.join(('shared', *parts))} beside the checkout (or PIIP_SHARED), which is not here")
    return folder


@pytest.fixture
def goldens() -> Path:
    return shared_folder("reference", "goldens")


@pytest.fixture
def coco100() -> Path:
    return shared_folder("data", "coco100")


@pytest.fixture
def bccd() -> Path:
    return shared_folder("data", "bccd")


@pytest.fixture
def reliability_cases() -> Path:
    return shared_folder("cases", "reliability")
