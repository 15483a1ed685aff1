import pytest

from piip.cli import key_values
from piip.data.augmentation import Augmentation, CropAugmentation
from piip.training.optim import schedule_factor
from piip.training.settings import Settings
from piip.training.start import build_settings


def test_poly_falls_to_its_end():
    settings = Settings(schedule="poly", warmup_iters=0, min_lr_ratio=0.1)
    assert schedule_factor(settings, 0, 100) == 1.0
    assert schedule_factor(settings, 50, 100) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule_factor(settings, 100, 100) == pytest.approx(0.1)
    steep = settings.model_copy(update={"power": 2.0, "min_lr_ratio": 0.0})
    assert schedule_factor(steep, 50, 100) == pytest.approx(0.25)


def test_poly_starts_with_the_warm_up():
    settings = Settings(schedule="poly", warmup_iters=10, warmup_ratio=0.001)
    factors = [schedule_factor(settings, step, 1000) for step in range(12)]
    assert factors[0] == pytest.approx(0.001)
    assert factors == sorted(factors[:11]) + factors[11:]
    assert factors[10] == pytest.approx(0.99)


def test_the_kind_of_augmentation_follows_from_the_recipe():
    recipe = {"augmentation": {"kind": "segmentation", "crop": 192}}
    assert build_settings(recipe, {}).augmentation == CropAugmentation(crop=192)
    assert build_settings(recipe, {"augmentation": {"flip": 0.0}}).augmentation == CropAugmentation(crop=192, flip=0.0)
    assert build_settings({}, {"augmentation": {"flip": 0.0}}).augmentation == Augmentation(flip=0.0)
    with pytest.raises(ValueError, match="scales"):
        build_settings(recipe, {"augmentation": {"scales": [300]}})


def test_parts_of_the_augmentation_from_the_command_line():
    assert key_values(["grad-clip=0.1", "augmentation.flip=0", "augmentation.resize=[1, 2]"]) == {
        "grad_clip": 0.1,
        "augmentation": {"flip": 0, "resize": [1, 2]},
    }
    with pytest.raises(ValueError, match="KEY=VALUE"):
        key_values(["augmentation"])
    with pytest.raises(ValueError, match="has no parts"):
        key_values(["lr=1", "lr.first=2"])
