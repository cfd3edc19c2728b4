import pytest
import torch

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
