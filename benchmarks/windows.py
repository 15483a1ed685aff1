"""What the padding of attention windows costs: multiply-adds of the released detectors' backbones, with and without.

    python benchmarks/windows.py

Counted on the meta device (torch's flop counter): the plain modules compute the padded tokens, their lean twins do not.
Both give the same maps (tests/lean/test_blocks.py).
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from piip import zoo
from piip.backbone import PIIPBackbone
from piip.inference import choose

NAMES = [name for name in zoo.list_models("*mask_rcnn*") if "convnext" not in name and "nano" not in name]


def multiply_adds(backbone: PIIPBackbone, size: int) -> float:
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(torch.empty(1, 3, size, size))
    return counter.get_total_flops() / 2e9


def main() -> None:
    print(f"{'G multiply-adds of the backbone':52} {'padded':>9} {'without':>9} {'saved':>7}")
    for name in NAMES:
        config = zoo.entry(name).backbone()
        with torch.device("meta"):
            backbone = PIIPBackbone(config).eval()
        padded = multiply_adds(backbone, config.branches[0].size)
        choose(backbone, "train")
        without = multiply_adds(backbone, config.branches[0].size)
        print(f"{name:52} {padded:9.1f} {without:9.1f} {1 - without / padded:7.1%}", flush=True)


if __name__ == "__main__":
    main()
