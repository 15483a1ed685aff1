"""The object that users hold: a named or saved model that trains, evaluates and predicts."""

from __future__ import annotations

from piip.api.evaluating import Evaluating
from piip.api.explaining import Explaining
from piip.api.exporting import Exporting
from piip.api.predicting import Predicting
from piip.api.sharing import Sharing
from piip.api.training import Training


class PIIP(Predicting, Training, Evaluating, Explaining, Exporting, Sharing):
    """A PIIP model by name, from saved weights, or from a config.

    Args:
        model: a name of the zoo (`piip models`): a model with fresh weights; or a path: a run folder, a
            `.safetensors` file or a saved model folder; or a YAML file that describes a pyramid of your own
            (docs/own_pyramid.md); or a `config.Model`; or a `PIIPModel`.
        device: where it trains, predicts and evaluates: a name of torch's ("cpu", "cuda:1"), the number of a GPU, or
            None or "auto": the first GPU if there is one, else the CPU.
        pretrained: for a name: its released weights, fetched from the Hugging Face Hub on first use.
        compile: predict with torch.compile, for images of few fixed sizes (each takes minutes once, and on CPUs it is
            often slower: see `docs/speed.md`). Where there is no compiler, a warning says so and nothing changes.
        graphs: predict with CUDA graphs on a CUDA device, for sizes of images that come again; they hold up to a
            quarter of the device's memory.

    >>> import piip
    >>> piip.PIIP("piip_nano_mask_rcnn").config.task
    'detection'
    """
