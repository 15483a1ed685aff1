"""Every wrong config is refused with a message that says what would be valid."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from tests import tiny

from piip import config, zoo
from piip.config.errors import problems


def refused(kind: type[BaseModel], values: dict[str, Any], *said: str) -> None:
    with pytest.raises(ValidationError) as error:
        kind.model_validate(values)
    for words in said:
        assert words in str(error.value)


def branch(**changes: Any) -> dict[str, Any]:
    return tiny.branch().model_dump() | changes


def backbone(*sizes_and_widths: tuple[int, int], **fields: Any) -> dict[str, Any]:
    branches = [branch(size=size, width=width) for size, width in sizes_and_widths]
    return {"branches": branches, "interaction": tiny.interaction().model_dump()} | fields


# -- branches --------------------------------------------------------------------------------------------------------


def test_width_and_heads() -> None:
    refused(config.Branch, branch(width=48, heads=5), "width 48 is not divisible by 5 heads", "valid: [1, 2, 3, 4, 6")


def test_a_branch_needs_one_patch() -> None:
    refused(config.Branch, branch(size=15, windows=None), "size 15 has no token grid", "use at least 16 pixels")
    assert tiny.branch(size=16, windows=None).size == 16


@pytest.mark.parametrize("groups", [((0, 1), (3, 3)), ((0, 1), (1, 3)), ((1, 3),), ((0, 3), (4, 3))])
def test_groups_that_skip_or_repeat_a_block(groups) -> None:
    refused(config.Branch, branch(groups=groups), "skip or repeat a block", "each group must begin at the block after")


def test_the_message_names_the_block_that_should_come() -> None:
    refused(config.Branch, branch(groups=((0, 1), (3, 3))), "at (3, 3)", "here 2")


@pytest.mark.parametrize("groups", [((0, 1),), ((0, 1), (2, 4)), ()])
def test_groups_that_end_early_or_late(groups) -> None:
    refused(config.Branch, branch(groups=groups), "the branch at 3", "valid would be ((0,")


def test_windows_of_another_number_than_blocks() -> None:
    refused(config.Branch, branch(windows=(2, None)), "2 windows for 4 blocks", "one number for all, or none")


def test_windows_larger_than_the_grid() -> None:
    refused(
        config.Branch,
        branch(size=64, windows=(2, 5, 9, None)),
        "windows of [5, 9] cells do not fit the branch's grid of 4 x 4 cells",
        "use at most 4, or none for global attention",
    )
    assert tiny.branch(size=64, windows=4).windows == (4, 4, 4, 4)


def test_one_window_is_for_all_blocks_and_one_number_of_groups_is_written_out() -> None:
    assert tiny.branch(windows=3).windows == (3, 3, 3, 3)
    assert tiny.branch(windows=None).windows == (None,) * 4
    assert tiny.branch(groups=3).groups == ((0, 0), (1, 1), (2, 3))


@pytest.mark.parametrize("key", ["size", "depth", "width", "heads", "patch", "mlp_ratio", "layer_scale"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_must_be_positive(key: str, value: int) -> None:
    refused(config.Branch, branch(**{key: value}), key, "greater than 0")


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_stochastic_depth_is_a_rate(value: float) -> None:
    refused(config.Branch, branch(drop_path=value), "drop_path")


def test_choices_are_listed() -> None:
    refused(config.Branch, branch(activation="relu"), "'gelu', 'gelu_tanh' or 'quick_gelu'")
    refused(config.Interaction, {"attention": "linear"}, "'deformable' or 'cross'")
    refused(config.FeatureMaps, {"strides": (4, 8)}, "valid are (4, 8, 16, 32), (8, 16, 32) and (16, 32)")


def test_a_timm_name_gives_the_architecture() -> None:
    named = config.Branch(size=224, model="deit_tiny_patch16_224", groups=2, windows=None)
    assert (named.depth, named.width, named.heads, named.patch) == (12, 192, 3, 16)
    assert named.groups == ((0, 5), (6, 11))
    assert (named.position_grid, named.layer_scale) == (14, None)


def test_timm_names_that_do_not_fit() -> None:
    values = {"size": 224, "groups": 2, "windows": None}
    refused(config.Branch, values | {"model": "deit_tiny_patch17_224"}, "timm has no model", "deit_tiny_patch16_224")
    refused(config.Branch, values | {"model": "resnet18"}, "'resnet18'", "cannot be a branch")
    refused(config.Branch, values | {"model": "deit_tiny_patch16_224", "width": 384}, "width 384", "192")


# -- backbones -------------------------------------------------------------------------------------------------------


def test_sizes_shrink_from_the_first_branch() -> None:
    refused(
        config.Backbone,
        backbone((64, 32), (128, 64)),
        "branch sizes [64, 128] must not grow",
        "list the finest branch (the smallest model on the largest image) first, here [128, 64]",
    )


def test_equal_sizes_are_fine() -> None:
    built = config.Backbone.model_validate(backbone((64, 32), (64, 64)))
    assert [branch.size for branch in built.branches] == [64, 64]


def test_branches_with_other_numbers_of_groups() -> None:
    values = backbone((64, 32), (64, 64))
    values["branches"][1]["groups"] = ((0, 3),)
    refused(config.Backbone, values, "branches have [2, 1] groups of blocks; all need the same number")


def test_one_branch_has_no_interaction_several_need_one() -> None:
    refused(config.Backbone, backbone((64, 32)), "leave `interaction` out")
    refused(config.Backbone, backbone((64, 32), (64, 64), interaction=None), "use Interaction() for the paper's")
    refused(config.Backbone, backbone(interaction=None), "branches", "at least 1 item")


def test_the_largest_width_is_normalised_in_groups() -> None:
    refused(
        config.Backbone, backbone((64, 32), (64, 40)), "width, 40, must be a multiple of 32", "nearest are [32, 64]"
    )
    refused(config.Backbone, backbone((64, 40), interaction=None), "multiple of 32")
    alone = backbone((64, 40), interaction=None, maps={"norm": "layernorm"})
    assert config.Backbone.model_validate(alone).width == 40


def test_the_values_of_an_interaction_are_divisible_by_its_heads() -> None:
    values = backbone((64, 24), (64, 64), interaction={"heads": 16})
    refused(
        config.Backbone, values, "branch 0: interaction values of 12 channels", "16 heads", "valid: [1, 2, 3, 4, 6, 12]"
    )
    cross = backbone((64, 24), (64, 64), interaction={"heads": 16, "attention": "cross"})
    refused(config.Backbone, cross, "interaction values of 24 channels")
    assert config.Backbone.model_validate(backbone((64, 24), (64, 64), interaction={"heads": 4})).width == 64


# -- models ----------------------------------------------------------------------------------------------------------


def test_category_ids_belong_to_classes() -> None:
    values = tiny.model().model_dump() | {"category_ids": (7, 9)}
    refused(config.Model, values, "2 category_ids for 3 classes")


def test_a_model_has_classes() -> None:
    refused(config.Model, tiny.model().model_dump() | {"classes": ()}, "classes", "at least 1 item")


def test_the_short_side_is_not_longer() -> None:
    refused(config.Preprocess, {"long_side": 100, "short_side": 101}, "short_side 101 is larger than long_side 100")


@pytest.mark.parametrize("key", ["score_threshold", "nms_threshold"])
def test_thresholds_lie_between_0_and_1(key: str) -> None:
    refused(config.MaskRCNN, {key: 1.5}, key, "less than or equal to 1")


@pytest.mark.parametrize(
    "built",
    [tiny.branch(), tiny.interaction(), config.FeatureMaps(), tiny.backbone(), config.MaskRCNN(), tiny.model()],
    ids=lambda built: type(built).__name__,
)
def test_every_config_refuses_unknown_keys_and_changes(built: BaseModel) -> None:
    refused(type(built), built.model_dump() | {"widht": 3}, "widht", "Extra inputs are not permitted")
    name = next(iter(type(built).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(built, name, getattr(built, name))
    assert hash(built) == hash(type(built).model_validate(built.model_dump()))


@pytest.mark.parametrize("branches", [1, 2, 3, 4])
def test_a_model_survives_json(branches: int) -> None:
    model = tiny.model(branches).model_copy(update={"category_ids": (3, 1, 90)})
    text = model.model_dump_json()
    assert config.Model.model_validate_json(text) == model
    assert config.Model.model_validate(json.loads(text)) == model
    assert model.task == "detection"


def test_the_smallest_image_has_a_token_in_every_branch() -> None:
    assert tiny.backbone(1).smallest_image == 32  # two patches, as the coarsest map may be half of the finest
    assert tiny.backbone(1).model_copy(update={"maps": None}).smallest_image == 16
    assert tiny.backbone(4).smallest_image == 64  # 16 of 64 pixels for the branch that sees a quarter
    assert zoo.entry("piip_nano_upernet").config().backbone.smallest_image == 64


def test_windows_follow_the_size_of_images() -> None:
    head = config.UperNet(window=512, stride=341)
    assert (head.scaled(0.5).window, head.scaled(0.5).stride) == (256, 170)
    assert config.UperNet().scaled(0.5) == config.UperNet()


def test_even_groups() -> None:
    assert config.even_groups(12, 12) == tuple((i, i) for i in range(12))
    assert config.even_groups(5, 2) == ((0, 1), (2, 4))
    for depth in range(1, 30):
        for count in range(1, depth + 1):
            groups = config.even_groups(depth, count)
            assert len(groups) == count
            assert tiny.branch(depth=depth, windows=None, groups=groups).depth == depth
    with pytest.raises(ValueError, match="3 blocks cannot form 4 groups; use 1 to 3"):
        config.even_groups(3, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": "many"}, "head.channels: Input should be a valid integer, not 'many'"),
        ({"channels": -1}, "head.channels: Input should be greater than 0, not -1"),
        ({"chanels": 3}, "head.chanels: there is no such setting; did you mean head.channels or head.fc_channels?"),
        ({"rate": 3}, "head.rate: there is no such setting; did you mean lr_rate?"),
        ({"anchor_ratios": "x" * 100}, "head.anchor_ratios: Input should be a valid tuple, not '" + "x" * 39),
    ],
)  # fmt: skip
def test_problems_are_named_as_they_were_written(change: dict[str, Any], message: str) -> None:
    written = tiny.model().model_dump()
    written["head"] |= change
    with pytest.raises(ValidationError) as error:
        config.Model.model_validate(written)
    known = [*(f"head.{name}" for name in config.MaskRCNN.model_fields), "lr_rate", "epochs"]
    assert problems(error.value, known) == message


def test_all_problems_are_told_in_one_line() -> None:
    with pytest.raises(ValidationError) as error:
        config.Preprocess.model_validate({"long_side": 100, "short_side": 0, "size": 3})
    found = problems(error.value)
    assert found == "short_side: Input should be greater than 0, not 0; size: there is no such setting"
    with pytest.raises(ValidationError) as error:
        config.Preprocess(long_side=100, short_side=200)
    assert problems(error.value) == "short_side 200 is larger than long_side 100"
