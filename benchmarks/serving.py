"""The endpoint beside a bare forward pass, a plain FastAPI app and `mlflow models serve`; engines beside each other.

Run: python benchmarks/serving.py [--rounds 3] [--seconds 2] [--size 256] [--only endpoint,plain,mlflow,bare,engines]

It trains a small U-Net (MobileNetV2 encoder) on a synthetic cohort for two minutes, registers it, starts all three
servers, and asks them in turn, round by round, with 1, 4 and 8 callers that never pause; the bare forward takes its
turn too. A study is 60 slices in a zip, a lone slice one TIFF; `mlflow models serve` gets the same pixels as JSON,
which is what it takes. The plain app does what a competent user would write without us: decode, forward in bf16 and
channels_last, as many slices at once as are fastest here, one study at a time, mask back; no checks, features or
survival. The bare forward is the same forward in one process, images prepared already; `bare engine` is the endpoint's
own way of computing there.

Engines (engines.py) are ways to compute the same network here; ONNX Runtime comes with `uv run --with`, where there is
uv and an index, and is left out elsewhere. Writes what it found to serving.md beside this file.
"""

import argparse
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import requests
from machine import first_lines, goal

HERE = Path(__file__)
NUM_SLICES, CONCURRENCIES, MODEL = 60, (1, 4, 8), "bench"
Cell = tuple[str, str, int]  # server, study, callers


def make_champion(work: Path, size: int) -> Path:
    """Train on a few invented patients until the masks look like tumors, register and promote; return the bundle."""
    from glioflow import bundle
    from glioflow.config import Experiment
    from glioflow.data.prepared.preparation import find_or_prepare
    from glioflow.data.splits import make_split
    from glioflow.data.synthetic.cohort import synthesize_lgg
    from glioflow.runs.train.worker import Worker, fit_network
    from glioflow.tracking import Tracking

    cores = os.cpu_count() or 1
    training = {"epochs": 3, "steps_per_epoch": 40, "batch_size": 8, "learning_rate": 2e-3, "cpus_per_worker": cores}
    experiment = Experiment.model_validate(
        {
            "name": MODEL,
            "preprocess": [{"step": "unit"}, {"step": "resize", "size": size}],
            "split": {"method": "counts", "counts": [6, 1, 1]},
            "model": {"architecture": "unet", "encoder": "mobilenet_v2"},
            "training": training,
        }
    )
    synthesize_lgg(work / "cohort", patients=8, seed=0, slices=(16, 20))
    cohort = find_or_prepare(work / "cohort", experiment.preprocess, home=work / "prepared")
    split = make_split(cohort.records, experiment.split)
    network, _ = fit_network(experiment, cohort.cases(split.train), cohort.cases(split.val), Worker(lambda *_: None))
    channels = ("pre", "flair", "post")
    origin = bundle.Origin(
        experiment=MODEL, cohort_format="lgg", fingerprint="f", source_fingerprint="s", split="d", test="t",
        num_patients={"train": 6}, fitted_on={}, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    said = bundle.describe(
        experiment, postprocess=experiment.postprocess, channels=channels, network_channels=channels, origin=origin,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )  # fmt: skip
    bundle.save(work / "bundle", said, network.state_dict())
    tracking = Tracking()
    made = tracking.register(MODEL, tracking.start(MODEL, MODEL, tags={}), work / "bundle", tags={})
    tracking.set_alias(MODEL, "champion", made.version)
    return work / "bundle"


def make_studies(work: Path) -> dict[str, list[Path]]:
    """Write one invented study that nobody trained on; return the files of a lone slice of it and of all of it."""
    from glioflow.data.synthetic.cohort import synthesize_lgg

    synthesize_lgg(work / "study", patients=1, seed=7, slices=(NUM_SLICES, NUM_SLICES))
    files = [path for path in (work / "study").glob("*/*.tif") if "_mask" not in path.name]
    files.sort(key=lambda path: int(path.stem.rpartition("_")[2]))
    return {"slice": [files[NUM_SLICES // 2]], f"{NUM_SLICES} slices": files}


def upload(url: str, files: list[Path]) -> requests.PreparedRequest:
    """Return the request that sends a study, ready to be sent again and again."""
    name, content = files[0].name, files[0].read_bytes()
    if len(files) > 1:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in files:
                archive.write(path, path.name)
        name, content = "study.zip", packed.getvalue()
    return requests.Request("POST", url, files=[("files", (name, content))]).prepare()


def as_json(url: str, files: list[Path]) -> requests.PreparedRequest:
    """Return the request that `mlflow models serve` takes."""
    from glioflow.data.formats.study import read_study

    body = json.dumps({"inputs": read_study(files).image.tolist()}, separators=(",", ":"))
    return requests.Request("POST", url, data=body, headers={"Content-Type": "application/json"}).prepare()


def measure(request: requests.PreparedRequest, callers: int, seconds: float) -> tuple[list[float], float]:
    """Return the latencies in ms and studies a second of callers that never pause."""

    def call(until: float) -> list[float]:
        times = []
        with requests.Session() as session:
            while time.perf_counter() < until:
                began = time.perf_counter()
                session.send(request, timeout=600).raise_for_status()
                times.append((time.perf_counter() - began) * 1000)
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        found = [ms for times in pool.map(call, [began + seconds] * callers) for ms in times]
    return found, len(found) / (time.perf_counter() - began)


def make_bare(folder: Path, files: list[Path], *, engine: bool) -> Callable[[float], tuple[list[float], float]]:
    """Return a function that measures the network alone, in this process: in PyTorch, or as the endpoint computes."""
    import torch

    from glioflow.data.formats.study import read_study
    from glioflow.data.preprocessing.pipeline import preprocess
    from glioflow.serving.engine.batching import BatchedPredictor
    from glioflow.serving.engine.selection import choose_engine

    predictor = BatchedPredictor.load(folder)
    predictor.network.to(memory_format=torch.channels_last)
    if engine:
        print(choose_engine(predictor), file=sys.stderr)
    image = np.asarray(preprocess(read_study(files), predictor.description.preprocess).image)
    predictor.probabilities(image)

    def run(seconds: float) -> tuple[list[float], float]:
        times, began = [], time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            predictor.probabilities(image)
            times.append((time.perf_counter() - start) * 1000)
        return times, len(times) / (time.perf_counter() - began)

    return run


PLAIN = """
import io, sys, threading, zipfile, cv2, numpy as np, tifffile, torch, uvicorn
from pathlib import Path
from fastapi import FastAPI, UploadFile
from glioflow import bundle
from glioflow.evaluation.inference import predict_volume
app, lock, size = FastAPI(), threading.Lock(), int(sys.argv[3])
network = bundle.load(Path(sys.argv[1])).network.to(memory_format=torch.channels_last)

@app.post("/predict")
def predict(files: list[UploadFile]):
    content = files[0].file.read()
    if files[0].filename.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted(archive.namelist(), key=lambda name: int(name.rpartition("_")[2][:-4]))
            planes = [tifffile.imread(io.BytesIO(archive.read(name))) for name in names]
    else:
        planes = [tifffile.imread(io.BytesIO(content))]
    height, width = planes[0].shape[:2]
    image = np.stack([cv2.resize(p, (size, size)) if p.shape[0] != size else p for p in planes])
    with lock:  # more at once only fight for the cores
        found = predict_volume(network, image.astype(np.float32) / 255, softmax=False)[..., 0] > 0.5
    if size != height:
        found = np.stack([cv2.resize(p.astype(np.uint8), (width, height), interpolation=0) for p in found]) > 0
    return {"slices": np.flatnonzero(found.any(axis=(1, 2))).tolist(), "mask": np.packbits(found).tobytes().hex()}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


@contextmanager
def server(command: list[str], probe: str, **environment: str) -> Iterator[None]:
    """Run a server for the length of a block, once `probe` answers."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 300
            while True:
                if running.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(log.read().decode(errors="replace")[-2000:])
                try:
                    if requests.get(probe, timeout=2).ok:
                        break
                except requests.RequestException:
                    pass
                time.sleep(0.3)
            yield
        finally:
            running.terminate()
            with suppress(subprocess.TimeoutExpired):
                running.wait(60)
            with suppress(ProcessLookupError):  # MLflow leaves its workers behind
                os.killpg(running.pid, signal.SIGKILL)


def start(stack: ExitStack, who: str, folder: Path, size: int) -> str:
    """Start one of the servers and return the address of its route."""
    from glioflow.cluster.storage import tracking_uri
    from glioflow.serving.ports import free_port

    port = str(free_port())
    at = f"http://127.0.0.1:{port}"
    if who == "endpoint":
        command = [sys.executable, "-m", "glioflow", "serve", "--name", MODEL, "--port", port]
        stack.enter_context(server(command, f"{at}/readyz"))
        return f"{at}/v1/predict"
    if who == "plain":
        stack.enter_context(server([sys.executable, "-c", PLAIN, str(folder), port, str(size)], f"{at}/docs"))
        return f"{at}/predict"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{MODEL}@champion", "--port", port]
    # One worker: torch has all cores in it, and uvicorn ends one of several that does not answer for 5 s, as a study's
    # JSON makes it.
    command += ["--host", "127.0.0.1", "--env-manager", "local", "--timeout", "600", "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by name
    stack.enter_context(server(command, f"{at}/ping", MLFLOW_TRACKING_URI=tracking_uri(), PATH=path))
    return f"{at}/invocations"


def compare(folder: Path, work: Path, only: list[str], asked: argparse.Namespace) -> list[str]:
    """Measure the servers in turn; return the lines that say what was found."""
    studies = make_studies(work)
    times: dict[Cell, list[float]] = defaultdict(list)
    speeds: dict[Cell, list[float]] = defaultdict(list)
    jobs: dict[Cell, Callable[[float], tuple[list[float], float]]] = {}
    with ExitStack() as stack:
        for who in (each for each in ("endpoint", "plain", "mlflow") if each in only):
            url = start(stack, who, folder, asked.size)
            for study, files in studies.items():
                request = (as_json if who == "mlflow" else upload)(url, files)
                measure(request, 1, 0.1)  # what is slow once only
                for callers in CONCURRENCIES:
                    jobs[who, study, callers] = lambda s, r=request, c=callers: measure(r, c, s)
        for study, files in studies.items() if "bare" in only else ():
            jobs["bare", study, 1] = make_bare(folder, files, engine=False)
            jobs["bare engine", study, 1] = make_bare(folder, files, engine=True)
        order = sorted(jobs, key=lambda cell: (cell[1], cell[2]))
        for number in range(asked.rounds):
            for cell in order:
                found, speed = jobs[cell](asked.seconds if cell[1] == "slice" else 2 * asked.seconds)
                times[cell] += found
                speeds[cell].append(speed)
                print(
                    f"round {number + 1}: {cell[0]:9s} {cell[1]:10s} {cell[2]} callers {speed:8.2f}/s", file=sys.stderr
                )
    lines = ["| server | study | callers | p50 ms | p99 ms | studies/s | requests |", "|---|---|---|---|---|---|---|"]
    for cell in order:
        p50, p99 = np.percentile(times[cell], [50, 99])
        speed = statistics.median(speeds[cell])
        lines.append(
            f"| {cell[0]} | {cell[1]} | {cell[2]} | {p50:.1f} | {p99:.1f} | {speed:.2f} | {len(times[cell])} |"
        )
    medians = {cell: (statistics.median(times[cell]), statistics.median(speeds[cell])) for cell in jobs}
    return [*lines, "", *judge(medians, list(studies))]


def judge(medians: dict[Cell, tuple[float, float]], studies: list[str]) -> list[str]:
    """Return the goals and what was reached, of what was measured."""
    lines = ["| goal | found | |", "|---|---|---|"]

    lone, whole = studies
    for study, share in ((whole, 0.9), (lone, 0.6)):
        if ("endpoint", study, 8) in medians and ("bare", study, 1) in medians:
            ratio, same = (
                medians["endpoint", study, 8][1] / medians[who, study, 1][1] for who in ("bare", "bare engine")
            )
            text = f"{study}: throughput of 8 callers at least {share:.0%} of the bare forward's"
            lines.append(goal(text, f"{ratio:.0%}; of the bare engine's {same:.0%}", reached=ratio >= share))
    for study in studies:
        if ("endpoint", study, 1) in medians and ("bare", study, 1) in medians:
            more = medians["endpoint", study, 1][0] - medians["bare", study, 1][0]
            text = f"{study}: one caller waits less than 15 ms more than the forward takes"
            lines.append(goal(text, f"{more:.1f} ms", reached=more < 15))
        for callers in CONCURRENCIES:
            if ("endpoint", study, callers) in medians and ("mlflow", study, callers) in medians:
                ratio = medians["endpoint", study, callers][1] / medians["mlflow", study, callers][1]
                text = f"{study}, callers {callers}: at least twice the throughput of `mlflow models serve`"
                lines.append(goal(text, f"{ratio:.1f} times", reached=ratio >= 2))
    return lines


def compare_engines(folder: Path, work: Path, asked: argparse.Namespace) -> list[str]:
    """Measure engines in a process of their own, with other people's where they can be had; return a table."""
    from glioflow.bundle import read_description
    from glioflow.data.formats.study import read_study
    from glioflow.data.preprocessing.pipeline import preprocess

    middle = next(reversed(make_studies(work / "more").values()))[NUM_SLICES // 2 - 2 : NUM_SLICES // 2 + 2]
    image = preprocess(read_study(middle), read_description(folder).preprocess).image
    np.save(work / "image.npy", np.asarray(image, np.float32))
    words = [str(HERE.with_name("engines.py")), str(folder), str(work / "image.npy")]
    words += ["--rounds", str(asked.rounds), "--seconds", str(asked.seconds)]
    beside = Path(sys.executable).parents[1] / "uv" / "bin" / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    with_them = [part for name in ("onnx", "onnxruntime") for part in ("--with", name)]
    ways = [[sys.executable, *words]]
    if uv:
        ways.insert(0, [uv, "run", "--quiet", "--no-project", "--python", sys.executable, *with_them, "python", *words])
    for command in ways:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode == 0:
            break
    else:
        return ["The engines could not be measured."]
    lines = ["| engine, 4 slices at once | slices/s | Dice to eager fp32 | volume |", "|---|---|---|---|"]
    for name, said in json.loads(done.stdout.splitlines()[-1]).items():
        if "error" in said:
            lines.append(f"| {name} | left out: {said['error']} | | |")
        else:
            lines.append(f"| {name} | {said['slices_per_s']:.1f} | {said['dice']:.4f} | {said['volume']:+.2%} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--only", default="endpoint,plain,mlflow,bare,engines")
    parser.add_argument("--out", type=Path, default=HERE.with_suffix(".md"))
    asked = parser.parse_args()
    only, load, began = asked.only.split(","), os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="glioflow-bench-") as scratch:
        work = Path(scratch)
        os.environ["GLIOFLOW_HOME"] = str(work / "home")
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "GLIOFLOW_SERVE_TOKEN", "OMP_NUM_THREADS"):
            os.environ.pop(name, None)
        from glioflow.cluster import silence

        silence()
        folder = make_champion(work, asked.size)
        lines = compare_engines(folder, work, asked) if "engines" in only else []
        if only != ["engines"]:
            lines = [*compare(folder, work, only, asked), "", *lines]
    head = first_lines("Serving", (time.monotonic() - began) / 60, load)
    about = (
        f"U-Net/MobileNetV2 at {asked.size} x {asked.size}, slices of 256 x 256 x 3; {asked.rounds} rounds, in turn; "
        "throughputs are medians of rounds, latencies of all requests."
    )
    text = "\n".join([*head, about, "", *lines, ""])
    asked.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
