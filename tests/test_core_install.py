"""What `pip install piip` alone gives, without the extras that train and evaluate."""

import subprocess
import sys

PROGRAM = """
import importlib, sys

ABSENT = {"accelerate", "faster_coco_eval", "hotcoco", "matplotlib", "scipy", "tensorboard"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import numpy, piip
for name in ("piip.api", "piip.cli", "piip.tasks.detection", "piip.tasks.segmentation", "piip.tasks.classification"):
    importlib.import_module(name)
print(len(piip.PIIP("piip_nano_mask_rcnn", "cpu").predict(numpy.zeros((64, 64, 3), numpy.uint8), conf=0.99)))
"""


def test_a_photo_is_predicted_without_the_extras() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()
