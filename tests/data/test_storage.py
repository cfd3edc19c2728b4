from types import SimpleNamespace

import pytest
import torch

from glioflow import memory
from glioflow.data.batches.loading import to_target
from glioflow.data.batches.storage import bytes_of, choose_storage
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError

CPU = torch.device("cpu")


def test_the_size_of_arrays_is_known_without_opening_them(prepared):
    cases = prepared.cases([record.id for record in prepared.records])
    assert bytes_of(cases) == sum(case.image.nbytes + case.mask.nbytes for case in cases)


def test_a_cpu_reads_from_the_disk_unless_asked_otherwise():
    assert choose_storage("auto", 10**6, CPU).storage == "disk"
    assert choose_storage("host", 10**6, CPU).storage == "host"
    assert choose_storage("disk", 10**15, CPU).storage == "disk"


def test_what_does_not_fit_or_is_not_there_is_said():
    with pytest.raises(UserError, match=r"host can hold .*got 1048576.00 GiB.*auto"):
        choose_storage("host", 2**50, CPU)
    with pytest.raises(UserError, match="device needs a GPU"):
        choose_storage("device", 1, CPU)


def test_a_gpu_holds_what_fits_into_its_share_and_the_host_what_does_not(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (70 * 2**30, 80 * 2**30))
    monkeypatch.setattr("glioflow.data.batches.storage.free_memory", lambda: 100 * 2**30)
    assert choose_storage("auto", 30 * 2**30, gpu).storage == "device"
    quarter = choose_storage("auto", 30 * 2**30, gpu, share=0.25)
    assert quarter.storage == "host"
    assert choose_storage("auto", 60 * 2**30, gpu).storage == "disk"
    assert "10.0 GiB of device memory" in choose_storage("auto", 60 * 2**30, gpu, share=0.25).reason


def test_processes_that_load_the_arrays_at_once_share_main_memory(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (70 * 2**30, 80 * 2**30))
    monkeypatch.setattr("glioflow.data.batches.storage.free_memory", lambda: 100 * 2**30)
    chosen = choose_storage("auto", 30 * 2**30, gpu, share=0.25, host_share=0.25)  # four take 120 GiB
    assert chosen.storage == "disk"
    assert chosen.reason == "30.00 GiB are more than 10.0 GiB of device memory and 12.5 GiB of host memory"
    assert choose_storage("host", 30 * 2**30, gpu, share=0.25, host_share=0.25).storage == "host"


def test_slices_that_are_augmented_on_the_cpu_lie_in_main_memory_or_on_disk(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (70 * 2**30, 80 * 2**30))
    monkeypatch.setattr("glioflow.data.batches.storage.free_memory", lambda: 100 * 2**30)
    assert choose_storage("auto", 30 * 2**30, gpu, on_device=False).storage == "host"
    assert choose_storage("auto", 60 * 2**30, gpu, on_device=False).storage == "disk"


@pytest.mark.parametrize(
    ("files", "free", "total"),
    [
        ({}, 100, 200),
        ({"memory.max": "max", "memory.current": "5", "memory.stat": "anon 5"}, 100, 200),
        # Pages of files that nothing uses can be dropped.
        ({"memory.max": "50", "memory.current": "40", "memory.stat": "anon 10\ninactive_file 30"}, 40, 50),
        ({"memory.max": "50", "memory.current": "60", "memory.stat": "anon 60\ninactive_file 0"}, 0, 50),
        ({"memory.max": "500", "memory.current": "10", "memory.stat": "anon 10\ninactive_file 0"}, 100, 200),
    ],
)
def test_a_container_has_the_memory_that_it_may_use(monkeypatch, tmp_path, files, free, total):
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=100, total=200))
    assert (memory.free_memory(), memory.total_memory()) == (free, total)


@pytest.mark.parametrize(
    "target",
    [
        TargetSettings(),
        TargetSettings(kind="multiclass", labels=(1, 2, 4)),
        TargetSettings(kind="regions", regions={"WT": (1, 2, 4), "ET": (4,)}, decode={"WT": 2, "ET": 4}),
    ],
    ids=lambda target: target.kind,
)
def test_labels_become_what_the_target_says_of_them(target):
    masks = torch.tensor([0, 1, 2, 4, 3, 255], dtype=torch.uint8).reshape(2, 1, 3)
    expected = torch.from_numpy(target.encode(masks.numpy()))
    expected = expected if expected.ndim == masks.ndim else expected.movedim(0, 1)
    assert torch.equal(to_target(target, masks), expected)
