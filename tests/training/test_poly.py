import pytest

from piip.training.optim import schedule_factor
from piip.training.settings import Settings


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
