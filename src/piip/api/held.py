"""The model that a `PIIP` holds: named, saved or described, built on first use."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
from typing_extensions import Self

from piip import config, devices, tasks, zoo
from piip.config.errors import problems
from piip.devices import Device
from piip.inference.resized import described_as
from piip.model import PIIPModel
from piip.prediction.least_scores import least_scores
from piip.weights import hub
from piip.weights.card import Facts, read_facts
from piip.weights.files import find_weights, load_model
from piip.weights.names import is_path
from piip.zoo.own import is_description, read_own

if TYPE_CHECKING:
    from piip.prediction.predictor import Predictor


class Held:
    """A model with its device and its recipe: what predicting, training, evaluating and sharing have in common."""

    def __init__(
        self,
        model: str | Path | config.Model | PIIPModel,
        device: Device | None = None,
        pretrained: bool = False,
        compile: bool = False,
        graphs: bool = True,
    ) -> None:
        self.device = str(devices.find(device))
        self._began_from: dict[str, str] = {}  # the weights, as they were given
        self._facts: Facts | None = None  # of the training of the weights
        self._given_device = None if device is None else devices.named(device)
        self.compile, self.graphs = compile, graphs
        self._kept: PIIPModel | Path | None = None  # a file is read when it is needed, see `_model`
        self._only_branches = False  # whether nothing but pretrained branches makes `_model` worth keeping
        self._random_branches: set[int] = set()  # of a published model, those that were to begin pretrained
        self._predictor: Predictor | None = None
        described_recipe: dict[str, Any] = {}
        if pretrained:
            if not isinstance(model, str):
                raise ValueError("pretrained=True needs the name of a published model, see piip.list_models()")
            model = hub.official_weights(model)
        if isinstance(model, str | Path) and str(model).startswith("~"):
            model = Path(model).expanduser()
        if isinstance(model, PIIPModel):
            self._kept, self.config = model, model.config
        elif isinstance(model, config.Model):
            self.config = model
        elif is_description(model):
            own = read_own(model)
            self.config, described_recipe = own.model, own.recipe
        elif is_path(model):
            self._kept = loaded = load_model(model)
            self._began_from = {"weights": str(model)}
            self._facts = read_facts(find_weights(model))
            self.config = loaded.config
        else:
            self.config = zoo.entry(str(model)).config()
            self._random_branches = set(range(len(zoo.entry(str(model)).pretraining)))
        self.recipe: dict[str, Any] = dict(tasks.of(self.config).defaults(self.config))
        if self.config.name in zoo.MODELS:
            self.recipe |= zoo.entry(self.config.name).recipe
        self.recipe |= described_recipe

    @property
    def model(self) -> PIIPModel:
        """The module; built with fresh weights on first use unless weights were loaded."""
        model = self._built().to(self.device)
        self._only_branches = False  # whoever holds it may change any weight
        self._random_branches = set()
        return model

    @property
    def _model(self) -> PIIPModel | None:
        """The module wherever it is; None: it has not been built."""
        if isinstance(self._kept, Path):
            self._kept = load_model(self._kept)
        return self._kept

    def _built(self) -> PIIPModel:
        """The module wherever it is: a training that several processes share must not begin with all on one GPU."""
        built = self._model
        if built is None:
            self._kept = built = PIIPModel(self.config)
        return built

    def with_sizes(self, sizes: Sequence[int]) -> Self:
        """The same branches on another pyramid, such as (4000, 1120, 448): a side in pixels for each, finest first.

        The limits of the input's sides follow the finest branch; position embeddings are resized to the grids there
        are. To be predicted with, trained and saved as any other. Weights that are loaded are shared with this object.

        Raises:
            ValueError: another number of sizes than of branches, or sizes that grow or do not fit a branch.
        """
        try:
            described = self.config.with_sizes(sizes)
        except pydantic.ValidationError as error:
            raise ValueError(f"sizes {'/'.join(map(str, sizes))}: {problems(error)}") from error
        return self._described(described)

    def with_views(self, views: Sequence[config.View]) -> Self:
        """The same branches with other views of photos in tiles, such as (1, 2, "image"), finest first.

        1 is the tile itself, 2 twice its sides around it, "image" the whole photo, each at the branch's own size; see
        docs/tiles.md. To be predicted with, trained and saved as any other. Weights that are loaded are shared with
        this object.

        Raises:
            ValueError: another number of views than of branches, a view that is none, a finest branch that does not
                see the tile, or a model without feature maps.
        """
        try:
            described = self.config.with_views(views)
        except pydantic.ValidationError as error:
            raise ValueError(f"views {','.join(map(str, views))}: {problems(error)}") from error
        return self._described(described)

    def with_thresholds(self, conf: Mapping[str, float]) -> Self:
        """The same with scores of its classes for `predict(conf="auto")`, which `save` writes into the weights.

        `conf`: as an evaluation finds them, `metrics.conf`; classes without one count as usual. A training that
        validates does this for its best weights. The weights are shared with this object.

        Raises:
            ValueError: a class that the model does not have, no score, or a model that finds no objects.
        """
        if self.config.task != "detection":
            raise ValueError(f"thresholds: {self.config.name} is a {self.config.task} model, which finds no objects")
        least_scores(conf, self.config)  # names a wrong class
        return self._described(self.config.with_thresholds([conf.get(name) for name in self.config.classes]))

    def _described(self, described: config.Model) -> Self:
        """The same weights under a config that differs in what no weight has to do with."""
        other = copy.copy(self)
        other.config, other.recipe, other._random_branches = described, dict(self.recipe), set(self._random_branches)
        other._kept = None if self._model is None else described_as(self._model, described)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: all but the predictor, which is made again when it is needed."""
        return self.__dict__ | {"_predictor": None}

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.config.classes

    def info(self) -> dict[str, Any]:
        """Branches, resolutions and parameters, as `piip info --json` prints them."""
        from piip.profile import model_info

        return model_info(self.config)

    def __repr__(self) -> str:
        sizes = "/".join(str(branch.size) for branch in self.config.backbone.branches)
        return f"PIIP({self.config.name}: {self.config.task}, {sizes}, {len(self.names)} classes)"
