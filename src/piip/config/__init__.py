"""Typed, frozen descriptions of a model: branches, interactions, merge, maps, head, preprocessing.

A config is plain data. It travels as JSON inside a checkpoint and can be written by hand as YAML; whatever
is wrong with it is refused when it is read, with a message that says what would be valid.
"""

from piip.config.backbone import GROUP_NORM_GROUPS, Backbone, FeatureMaps, Interaction
from piip.config.branch import Branch, Frozen, Group, Rate, Stage, View, even_groups
from piip.config.encoder import Encoder
from piip.config.heads import DINO, Classifier, Head, MaskRCNN, Task, UperNet
from piip.config.model import ImageSize, Model, Preprocess

__all__ = [
    "DINO",
    "GROUP_NORM_GROUPS",
    "Backbone",
    "Branch",
    "Classifier",
    "Encoder",
    "FeatureMaps",
    "Frozen",
    "Group",
    "Head",
    "ImageSize",
    "Interaction",
    "MaskRCNN",
    "Model",
    "Preprocess",
    "Rate",
    "Stage",
    "Task",
    "UperNet",
    "View",
    "even_groups",
]
