"""Without the extra, serving says which one it needs."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules[{package!r}] = None  # as where it is not installed
from piip.serve.run import serve
try:
    serve("x")
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["fastapi", "prometheus_client", "uvicorn"])
def test_what_to_install_is_said(package: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(package=package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == 'serving needs some more packages: pip install "piip[serve]"\n', done.stderr
