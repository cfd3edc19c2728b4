"""Slices of several requests in one forward pass: everybody gets their own, nobody stands behind a long study."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bundles import Bright, changed, describe
from glioflow.bundle.prediction import Predictor
from glioflow.serving.engine.batching import BatchedPredictor, Batcher, share_out

PIXELS = 4 * 4  # of a slice of `image`


class Slow:
    """Doubles what it is given, each pass only when told to."""

    def __init__(self):
        self.go, self.entered, self.sizes = threading.Semaphore(0), threading.Event(), []

    def __call__(self, block):
        self.entered.set()
        self.go.acquire(timeout=10)
        self.sizes.append(len(block))
        return (2 * block).astype(np.float32)


def ask(batcher, run, images, owner="network"):
    """Ask for all images at once, in order, while the network is busy with the first."""
    pool = ThreadPoolExecutor(len(images))
    futures = []
    for image in images:
        futures.append(pool.submit(batcher, owner, run, image))
        while batcher.queued < len(futures):
            pass
        assert run.entered.wait(10)
    return futures


def image(count, value, size=4):
    return np.full((count, size, size, 1), value, np.float32)


def test_what_arrives_while_the_network_runs_shares_the_next_pass():
    batcher, slow = Batcher(16 * PIXELS), Slow()
    futures = ask(batcher, slow, [image(1, 9), image(1, 1), image(1, 2), image(2, 3)])
    slow.go.release(9)
    answers = [future.result(10) for future in futures]
    assert [len(answer) for answer in answers] == [1, 1, 1, 2]
    assert [float(answer.max()) for answer in answers] == [18, 2, 4, 6]
    assert slow.sizes == [1, 4]
    assert batcher.passes[-1] == (4, 3)


def test_a_lone_slice_does_not_wait_for_a_long_study():
    batcher, slow = Batcher(8 * PIXELS), Slow()
    long, lone = ask(batcher, slow, [image(60, 1), image(1, 5)])
    slow.go.release(2)
    assert float(lone.result(10).max()) == 10
    assert not long.done()
    slow.go.release(20)
    assert long.result(10).shape == (60, 4, 4, 1)
    assert max(slow.sizes) == 8


def test_other_sizes_and_other_networks_never_share_a_pass():
    batcher, slow = Batcher(16 * PIXELS), Slow()
    futures = ask(batcher, slow, [image(1, 1), image(1, 2, size=8)])
    futures += [ThreadPoolExecutor(1).submit(batcher, "other", slow, image(1, 3))]
    slow.go.release(9)
    assert [future.result(10).shape[1] for future in futures] == [4, 8, 4]
    assert slow.sizes == [1, 1, 1]


def test_a_volume_is_never_cut():
    batcher, slow = Batcher(4 * PIXELS), Slow()
    slow.go.release(9)
    assert len(batcher("network", slow, image(10, 1), whole=True)) == 10
    assert slow.sizes == [10]


def test_a_failure_is_told_to_those_who_share_it_and_the_next_are_answered():
    batcher = Batcher(4 * PIXELS)

    def broken(block):
        raise MemoryError("too much")

    with pytest.raises(MemoryError):
        batcher("network", broken, image(2, 1))
    assert float(batcher("network", lambda block: block, image(1, 7)).max()) == 7


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [
        ([1, 60], 16, [1, 15]),
        ([60, 60], 16, [8, 8]),
        ([3], 16, [3]),
        ([1] * 20, 16, [1] * 16 + [0] * 4),
        ([0, 5], 4, [0, 4]),
    ],
)
def test_room_is_shared_out_evenly_and_nothing_is_left_that_somebody_wants(wanted, room, given):
    assert share_out(wanted, room) == given


def test_a_batched_predictor_says_what_a_plain_one_says(tiny):
    heated = changed(tiny, postprocess={"temperature": 20.0})
    plain = Predictor(describe(heated), Bright(above=0.3))
    batched = BatchedPredictor(describe(heated), plain.network)
    batched.batcher = Batcher(4 * PIXELS)
    images = [np.random.default_rng(k).random((k + 1, 32, 32, 3), np.float32) for k in range(5)]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(batched.probabilities, images))
    for answer, each in zip(answers, images, strict=True):
        np.testing.assert_allclose(answer, plain.probabilities(each), atol=2e-2)
