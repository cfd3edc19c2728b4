"""The endpoint beside a bare forward pass, a plain FastAPI app and `mlflow models serve`, in one run.

Run: python benchmarks/serving.py [--seconds 8] [--size 256] [--engines] [--only endpoint,bare,plain,mlflow]

Every server answers the same network (U-Net, MobileNetV2 encoder, random weights) on this machine, one after the other,
with callers in processes of their own. A study is 60 slices in a zip, a lone slice one TIFF. The plain app does what a
competent user would write without us: decode, forward, mask back; no checks, features or survival. The bare forward is
the ceiling: one process, images prepared already. `--engines` measures ways of computing on this CPU once.
"""

import argparse
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tifffile

NUM_SLICES = 60
CONCURRENCIES = (1, 4, 8)
MODEL = "bench"


def make_bundle(folder: Path, size: int) -> None:
    """Write a bundle of random weights for LGG's channels."""
    import torch

    from glioflow import bundle
    from glioflow.config import Experiment
    from glioflow.models import build_network

    experiment = Experiment.model_validate(
        {
            "name": MODEL,
            "preprocess": [{"step": "unit"}, {"step": "resize", "size": size}],
            "model": {"architecture": "unet", "encoder": "mobilenet_v2"},
        }
    )
    torch.manual_seed(0)
    network = build_network(experiment.model, in_channels=3, num_outputs=1)
    with torch.no_grad():  # a random network's masks are noise, whose features take longer than any tumor's
        list(network.parameters())[-1].fill_(-4.0)
    origin = bundle.Origin(
        experiment=MODEL, cohort_format="lgg", fingerprint="f", source_fingerprint="s", split="d", test="t",
        num_patients={"train": 1}, fitted_on={}, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    said = bundle.describe(
        experiment, postprocess=experiment.postprocess, channels=("pre", "flair", "post"),
        network_channels=("pre", "flair", "post"), origin=origin,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )  # fmt: skip
    bundle.save(folder, said, network.state_dict())


def make_study(count: int, size: int) -> tuple[str, bytes, np.ndarray]:
    """Return file name, content and image (S, H, W, 3) of a phantom study."""
    from glioflow.data.synthetic_phantom import TumorPlan, draw_phantom, render, smooth_noise

    rng = np.random.default_rng(0)
    shape = (NUM_SLICES, size, size)
    phantom = draw_phantom(rng, shape, TumorPlan(radius=0.3, irregularity=0.3), head=True)
    texture = smooth_noise(rng, shape, (8, 16, 16))
    image = np.stack([render(rng, phantom, name, texture) for name in ("t1", "flair", "t1ce")], axis=-1)
    levels = np.clip(image * 150, 0, 255).astype(np.uint8)
    levels = levels if count > 1 else levels[NUM_SLICES // 2 : NUM_SLICES // 2 + 1]
    files = []
    for number, plane in enumerate(levels, start=1):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, plane, photometric="rgb")
        files.append((f"TCGA_CS_4941_19960909_{number}.tif", buffer.getvalue()))
    if count == 1:
        return (*files[0], levels)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return "study.zip", packed.getvalue(), levels


def _call(url: str, name: str, content: bytes, kind: str) -> None:
    if kind == "mlflow":
        response = requests.post(url, data=content, headers={"Content-Type": "application/json"}, timeout=600)
    else:
        response = requests.post(url, files=[("files", (name, content))], timeout=600)
    response.raise_for_status()


def _caller(url: str, name: str, content: bytes, kind: str, until: float, out: Any) -> None:
    times = []
    while time.time() < until:
        began = time.perf_counter()
        _call(url, name, content, kind)
        times.append((time.perf_counter() - began) * 1000)
    out.put(times)


def measure(url: str, name: str, content: bytes, kind: str, concurrency: int, seconds: float) -> dict[str, float]:
    """Return latency in ms and studies a second of `concurrency` callers in processes of their own."""
    _call(url, name, content, kind)
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    until = time.time() + 3 + seconds  # callers start together, however long Python takes to
    began = time.time() + 3
    args = (url, name, content, kind, until, out)
    callers = [context.Process(target=_caller, args=args) for _ in range(concurrency)]
    for caller in callers:
        caller.start()
    times = [ms for _ in callers for ms in out.get(timeout=seconds + 600)]
    ended = time.time()
    for caller in callers:
        caller.join()
    steady = sorted(times)
    return {
        "p50_ms": statistics.median(steady),
        "p99_ms": steady[min(len(steady) - 1, int(0.99 * len(steady)))],
        "per_s": len(steady) / max(ended - began, 1e-9),
    }


def bare(folder: Path, image: np.ndarray, seconds: float) -> dict[str, float]:
    """Return the same of the network alone, in this process, on prepared images, as the endpoint computes."""
    from glioflow.serving.batching import BatchedPredictor
    from glioflow.serving.engine import choose_engine

    predictor = BatchedPredictor.load(folder)
    print("engine", choose_engine(predictor), file=sys.stderr)
    prepared = image.astype(np.float32) / 255
    predictor.probabilities(prepared)
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        predictor.probabilities(prepared)
        times.append((time.perf_counter() - start) * 1000)
    return {
        "p50_ms": statistics.median(times),
        "p99_ms": sorted(times)[min(len(times) - 1, int(0.99 * len(times)))],
        "per_s": len(times) / (time.perf_counter() - began),
    }


PLAIN = """
import io, sys, zipfile, numpy as np, tifffile, torch
from pathlib import Path
from fastapi import FastAPI, UploadFile
from glioflow.evaluation.inference import predict_volume
from glioflow import bundle
app = FastAPI()
loaded = bundle.load(Path(sys.argv[1]))
network = loaded.network.to(memory_format=torch.channels_last)

@app.post("/predict")
def predict(files: list[UploadFile]):
    content = files[0].file.read()
    if files[0].filename.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            planes = [tifffile.imread(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    else:
        planes = [tifffile.imread(io.BytesIO(content))]
    found = predict_volume(network, np.stack(planes).astype(np.float32) / 255, softmax=False)[..., 0] > 0.5
    return {"slices": np.flatnonzero(found.any(axis=(1, 2))).tolist(), "mask": np.packbits(found).tobytes().hex()}

import uvicorn
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


@contextmanager
def process(command: list[str], probe: str, **environment: str) -> Any:
    """Run a server for the length of a block, once `probe` answers."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 180
            while True:
                if running.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(log.read().decode(errors="replace")[-2000:])
                try:
                    if requests.get(probe, timeout=2).status_code < 500:
                        break
                except requests.RequestException:
                    time.sleep(0.3)
            yield
        finally:
            running.terminate()
            running.wait(30)


def engines(folder: Path, image: np.ndarray, seconds: float) -> dict[str, float]:
    """Return slices a second of ways of computing on this machine; ONNX Runtime and OpenVINO where installed."""
    import torch

    from glioflow import bundle

    batch = torch.from_numpy(image[:16].astype(np.float32) / 255).permute(0, 3, 1, 2)
    network = bundle.load(folder).network
    plain, last = batch.contiguous(), batch.contiguous(memory_format=torch.channels_last)

    def half(run: Callable[[], Any]) -> Callable[[], Any]:
        def at_half() -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return run()

        return at_half

    ways: dict[str, Callable[[], Any]] = {"eager fp32": lambda: network(plain)}
    swapped = bundle.load(folder).network.to(memory_format=torch.channels_last)
    ways["channels_last fp32"] = lambda: swapped(last)
    ways["channels_last bf16"] = half(lambda: swapped(last))
    compiled = torch.compile(swapped)
    ways["compiled channels_last fp32"] = lambda: compiled(last)
    ways["compiled channels_last bf16"] = half(lambda: compiled(last))
    ways |= _onnx(network, plain)
    speeds = {}
    with torch.inference_mode():
        for name, run in ways.items():
            try:
                run()
                run()
            except Exception as error:  # no compiler, or no such library
                print(f"{name}: {type(error).__name__}", file=sys.stderr)
                continue
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                run()
                count += len(batch)
            speeds[name] = count / (time.perf_counter() - began)
    return speeds


def _onnx(network: Any, batch: Any) -> dict[str, Callable[[], Any]]:
    import torch

    try:
        import onnxruntime
    except ImportError:
        return {}
    buffer = io.BytesIO()
    torch.onnx.export(network, (batch,), buffer, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    session = onnxruntime.InferenceSession(buffer.getvalue())
    return {"onnxruntime fp32": lambda: session.run(None, {"x": batch.numpy()})}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--only", default="bare,endpoint,plain,mlflow")
    parser.add_argument("--engines", action="store_true")
    asked = parser.parse_args()
    only, rows = asked.only.split(","), []
    scratch = tempfile.TemporaryDirectory(prefix="glioflow-bench-")
    work = Path(scratch.name)
    os.environ["GLIOFLOW_HOME"] = str(work / "home")
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "GLIOFLOW_SERVE_TOKEN"):
        os.environ.pop(name, None)
    make_bundle(work / "bundle", asked.size)
    studies = {"slice": make_study(1, asked.size), f"{NUM_SLICES} slices": make_study(NUM_SLICES, asked.size)}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", file=sys.stderr)
    if asked.engines:
        for name, speed in engines(work / "bundle", studies[f"{NUM_SLICES} slices"][2], asked.seconds).items():
            print(f"engine  {name:30s} {speed:8.1f} slices/s")

    def add(who: str, what: str, concurrency: int, numbers: dict[str, float]) -> None:
        rows.append({"server": who, "study": what, "concurrency": concurrency, **numbers})
        said = "  ".join(f"{key} {value:9.2f}" for key, value in numbers.items())
        print(f"{who:9s} {what:10s} concurrency {concurrency}  {said}", flush=True)

    def ask(who: str, url: str, bodies: dict[str, tuple[str, bytes]]) -> None:
        for what, (name, content) in bodies.items():
            for concurrency in CONCURRENCIES:
                add(who, what, concurrency, measure(url, name, content, who, concurrency, asked.seconds))

    uploads = {what: (name, content) for what, (name, content, _) in studies.items()}
    if "bare" in only:
        for what, (_, _, image) in studies.items():
            add("bare", what, 1, bare(work / "bundle", image, asked.seconds))
    if "plain" in only:
        from glioflow.serving.server import free_port

        port = free_port()
        command = [sys.executable, "-c", PLAIN, str(work / "bundle"), str(port)]
        with process(command, f"http://127.0.0.1:{port}/docs"):
            ask("plain", f"http://127.0.0.1:{port}/predict", uploads)
    if "endpoint" in only or "mlflow" in only:
        source = register(work / "bundle")
    if "endpoint" in only:
        from glioflow import cluster
        from glioflow.serving.server import free_port, serving

        with cluster.ending(), serving(MODEL, host="127.0.0.1", port=free_port()) as served:
            ask("endpoint", f"{served['url']}/v1/predict", uploads)
    if "mlflow" in only:
        from glioflow.config.places import tracking_uri
        from glioflow.serving.server import free_port

        port = free_port()
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", source, "-p", str(port)]
        command += ["--host", "127.0.0.1", "--env-manager", "local"]
        bodies = {
            what: (name, json.dumps({"inputs": image.astype(np.float32).tolist()}).encode())
            for what, (name, _, image) in studies.items()
        }
        try:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by name
            with process(command, f"http://127.0.0.1:{port}/ping", MLFLOW_TRACKING_URI=tracking_uri(), PATH=path):
                ask("mlflow", f"http://127.0.0.1:{port}/invocations", bodies)
        except (RuntimeError, requests.RequestException) as error:
            print(f"mlflow models serve did not answer: {str(error)[-500:]}", file=sys.stderr)
    print(json.dumps(rows))


def register(folder: Path) -> str:
    """Register the bundle as champion; returns where its MLflow model lies."""
    from glioflow.tracking import Tracking

    tracking = Tracking()
    made = tracking.register(MODEL, tracking.start("bench", "bench", tags={}), folder, tags={})
    tracking.set_alias(MODEL, "champion", made.version)
    return str(made.source)


if __name__ == "__main__":
    main()
