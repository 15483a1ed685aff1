"""The weights that `piip demo` begins with: trained from scratch on scenes that the demo does not draw.

    python benchmarks/demo_weights.py [--output runs/demo_weights] [--file src/piip/demo/fruit.safetensors]

Other scenes than the demo's, and no watermelon in them: that one the demo learns. An interrupted training goes on when
the command is given again. Takes about 25 minutes of one CPU core; what it gave is told in `src/piip/demo/README.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from piip import PIIP
from piip.data.fruit.scenes import make_fruit
from piip.demo.model import KNOWN, RECIPE, WEIGHTS, demo_model
from piip.training.folder import RunFolder
from piip.weights.files import load_model, save_model

SEED = 1
"""of the scenes and of the training; the demo's scenes have 0"""
SIZE = (288, 384)
"""of the pictures, which the network sees at 192 x 256"""
TRAIN_IMAGES, VAL_IMAGES = 2400, 64
EPOCHS = 2

FROM_SCRATCH: dict[str, Any] = RECIPE | {"warmup_iters": 150, "ema": 0.998, "save_minutes": 3.0, "seed": SEED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/demo_weights"))
    parser.add_argument("--file", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    data, folder = arguments.output / "fruit", arguments.output / "detection" / "fruit"
    if RunFolder(folder).checkpoint.exists():
        _, result = PIIP.resume(folder, EPOCHS)
    else:
        make_fruit(data, TRAIN_IMAGES, VAL_IMAGES, SEED, SIZE, KNOWN)
        result = PIIP(demo_model()).train(data, EPOCHS, output=arguments.output, name="fruit", **FROM_SCRATCH)
    if result.end == "stopped":
        raise SystemExit("interrupted and saved: give the command again to go on")
    print(save_model(load_model(result.last_weights).half(), arguments.file))


if __name__ == "__main__":
    main()
