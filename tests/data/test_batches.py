"""Padding, order, resuming and sharding of batches."""

import pickle

import pytest
import torch
from coco_records import annotation, image

from piip.config import Preprocess
from piip.data.augmentation import from_scratch
from piip.data.batches import EpochSampler, collate, eval_loader, is_spare, train_loader
from piip.data.detection.coco import read_coco
from piip.data.detection.dataset import DetectionDataset, Sample
from piip.data.detection.transforms import TestTransform, TrainTransform
from piip.data.image_files import ImageError
from piip.data.seeding import derived_seed
from piip.structures import Batch, Instances

FILES = tuple(f"{i}.png" for i in range(1, 8))


@pytest.fixture
def dataset(write) -> DetectionDataset:
    records = [annotation(i, image_id=i) for i in range(1, 7)]
    data, _ = read_coco(*write(records, images=[image(i) for i in range(1, 8)], files=FILES))
    return DetectionDataset(data, TrainTransform(Preprocess(long_side=64, short_side=48), from_scratch()), seed=5)


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a.indices == b.indices
        assert a.image_sizes == b.image_sizes
        assert torch.equal(a.images, b.images)
        for x, y in zip(a.targets, b.targets, strict=True):
            assert torch.equal(x.boxes, y.boxes)
            assert torch.equal(x.labels, y.labels)
            assert torch.equal(x.masks, y.masks)


def test_collate_pads_right_and_below():
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    samples = [
        Sample(torch.ones(3, 20, 50), nothing, (40, 100), 3),
        Sample(torch.ones(3, 33, 10), nothing, (66, 20), 8),
    ]
    batch = collate(samples, 32)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.image_sizes == [(20, 50), (33, 10)]
    assert batch.original_sizes == [(40, 100), (66, 20)]
    assert batch.indices == [3, 8]
    assert batch.images[0, :, :20, :50].eq(1).all()
    assert batch.images[0].sum() == 3 * 20 * 50
    assert batch.images[1].sum() == 3 * 33 * 10
    assert collate(samples[:1], 1).images.shape == (1, 3, 20, 50)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 31])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_sampler_leaves_nothing_out_and_keeps_step(count, world, batch_size):
    ranks = [list(EpochSampler(count, batch_size, 0, 4, rank=rank, world=world)) for rank in range(world)]
    assert {epoch for batches in ranks for batch in batches for epoch, _ in batch} == {4}
    check_shares([[[position for _, position in batch] for batch in batches] for batches in ranks], count, batch_size)
    assert len(EpochSampler(count, batch_size, 0, 4, world=world)) == len(ranks[0])


def check_shares(ranks: list[list[list[int]]], count: int, batch_size: int) -> None:
    """Each image counts once; every process has as many batches, whole ones but for the last, and an image in each."""
    world = len(ranks)
    assert len({len(batches) for batches in ranks}) == 1, "every process needs as many batches"
    for batches in ranks:
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert 1 <= len(batches[-1]) <= batch_size
    positions = [
        position
        for rank, batches in enumerate(ranks)
        for number, batch in enumerate(batches)
        for position in batch
        if not is_spare(count, batch_size, number, rank, world)
    ]
    assert sorted(positions) == list(range(count))


def test_where_there_are_fewer_images_than_processes_the_others_have_spare_ones():
    ranks = [list(EpochSampler(5, 1, 0, 0, rank=rank, world=4)) for rank in range(4)]
    assert len({batches[1][0] for batches in ranks}) == 1
    assert [is_spare(5, 1, 1, rank, 4) for rank in range(4)] == [False, True, True, True]
    assert not any(is_spare(5, 1, 0, rank, 4) for rank in range(4))


def test_keys_of_a_step_survive_the_way_to_the_processes_that_read():
    [[keys]] = [list(EpochSampler(5, 3, 0, 0, rank=1, world=2))]
    copy = pickle.loads(pickle.dumps(keys))
    assert (list(copy), copy.step, copy.first) == (list(keys), keys.step, 3)
    assert len(keys.step) == 5
    assert keys.step[3:] == keys


def test_sampler_order_does_not_depend_on_the_number_of_processes():
    one = list(EpochSampler(24, 4, 7, 2))
    two = [list(EpochSampler(24, 2, 7, 2, rank=rank, world=2)) for rank in range(2)]
    for together, first, second in zip(one, *two, strict=True):
        assert sorted(together) == sorted(first + second)


def test_sampler_resumes_and_shuffles():
    whole = list(EpochSampler(20, 3, seed=1, epoch=0))
    for start in range(len(whole) + 2):
        sampler = EpochSampler(20, 3, seed=1, epoch=0, start_batch=start)
        assert list(sampler) == whole[start:]
        assert len(sampler) == len(whole[start:])

    def order(seed: int, epoch: int) -> list[int]:
        return [position for batch in EpochSampler(20, 3, seed, epoch) for _, position in batch]

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


GROUPS = [index % 3 == 0 for index in range(64)]
"""of 64 images: every third of one kind"""


def batches_of(count: int, batch_size: int, world: int = 1, start: int = 0, seed: int = 0) -> list[list[list[int]]]:
    """The batches of every process, of images in groups."""
    samplers = [
        EpochSampler(count, batch_size, seed, 4, start, rank=rank, world=world, groups=GROUPS[:count])
        for rank in range(world)
    ]
    return [[[position for _, position in batch] for batch in sampler] for sampler in samplers]


@pytest.mark.parametrize("count", [1, 2, 7, 31, 64])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_grouped_sampler_leaves_nothing_out_and_keeps_step(count, world, batch_size):
    ranks = batches_of(count, batch_size, world)
    check_shares(ranks, count, batch_size)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_are_of_one_group_but_for_the_last(world):
    ranks = batches_of(64, 4, world)
    steps = sum(GROUPS) // (4 * world) + (64 - sum(GROUPS)) // (4 * world)  # one padded size for all processes
    for batches in ranks:
        for batch in batches[:steps]:
            assert len({GROUPS[position] for position in batch}) == 1
    kinds = [GROUPS[batches[step][0]] for step in range(steps) for batches in ranks]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True)), "the groups alternate at random"


def test_grouped_batches_do_not_depend_on_the_number_of_processes():
    (one,), two = batches_of(64, 4), batches_of(64, 2, world=2)
    assert [first + second for first, second in zip(*two, strict=True)] == one


def test_a_run_keeps_its_groups_on_another_number_of_processes():
    whole = EpochSampler(64, 8, 0, 4, groups=GROUPS)
    halves = EpochSampler(64, 4, 0, 4, groups=GROUPS, together=8)
    assert [key for batch in halves for key in batch] == [key for batch in whole for key in batch]


def test_grouped_sampler_resumes_and_shuffles():
    for world in (1, 2):
        whole = batches_of(31, 3, world)
        for start in range(len(whole[0]) + 1):
            assert batches_of(31, 3, world, start) == [batches[start:] for batches in whole]
    assert batches_of(31, 3, seed=1) != batches_of(31, 3)


def test_every_image_needs_a_group():
    with pytest.raises(ValueError, match="3 groups for 5 images"):
        EpochSampler(5, 2, 0, 0, groups=[0, 0, 1])


@pytest.mark.parametrize(
    "arguments", [(0, 1, 0, 0), (5, 0, 0, 0), (5, 1, 0, 0, -1), (5, 1, 0, 0, 0, 2, 2), (5, 1, 0, 0, 0, -1, 2)]
)
def test_sampler_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match=r"no images|must be at least"):
        EpochSampler(*arguments)


def test_workers_change_nothing(dataset):
    alone = list(train_loader(dataset, 2, seed=3, epoch=1, pad_multiple=16))
    assert_same(alone, list(train_loader(dataset, 2, seed=3, epoch=1, workers=2, pad_multiple=16)))
    assert_same(alone[2:], list(train_loader(dataset, 2, seed=3, epoch=1, start_batch=2, workers=2, pad_multiple=16)))


def test_global_generator_is_left_alone(dataset):
    before = torch.get_rng_state()
    for loader in (train_loader(dataset, 2, 0, 0), eval_loader(dataset, 2)):
        list(loader)
    list(train_loader(dataset, 2, 0, 0, workers=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (3, 0)])
def test_evaluation_sees_every_image_once_and_in_order(dataset, world, workers):
    shares = [
        [index for batch in eval_loader(dataset, 2, workers, rank, world) for index in batch.indices]
        for rank in range(world)
    ]
    batches = [list(range(7))[start : start + 2] for start in range(0, 7, 2)]
    assert shares == [[index for batch in batches[rank::world] for index in batch] for rank in range(world)]


def test_a_batch_of_images_without_objects(write):
    data, _ = read_coco(*write([annotation(1)]))
    dataset = DetectionDataset(data, TestTransform(Preprocess(long_side=40, short_side=30)))
    batch = next(iter(eval_loader(dataset, 1, rank=1, world=2)))
    assert [target.masks.shape for target in batch.targets] == [(0, 30, 40)]
    assert batch.to("cpu").targets[0].boxes.shape == (0, 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named_also_from_a_worker(dataset, workers):
    path = dataset.data.images[3].path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"4\.png"):
        list(train_loader(dataset, 2, 0, 0, workers=workers))


def test_loaders_survive_pickling_for_platforms_that_spawn(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0, 0].image, dataset[0, 0].image)


def test_order_is_frozen():
    """Runs begun with an older version must resume in the same order."""
    assert derived_seed(11, 2) == 6947954896665523080
    assert [position for batch in EpochSampler(9, 4, 11, 2) for _, position in batch] == [0, 1, 6, 2, 7, 3, 4, 8, 5]
    assert batches_of(9, 2, seed=11) == [[[0, 3], [1, 8], [2, 5], [7, 4], [6]]]
