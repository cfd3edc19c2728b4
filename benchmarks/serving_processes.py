"""What each process of the endpoint spends on an answer, in CPU time, and holds at most, in memory.

Run: python benchmarks/serving_processes.py [--model NAME] [--seconds 6] [--size 256]

CPU time says where an answer's work is done, and on a machine whose cores are all busy how many answers a second there
can be, whatever else runs there; that of the network alone is measured in this process. Memory is the resident set of
each process, before and at its peak, during lone slices, whole studies, and uploads of 200 MB that are no study.
Without --model a small champion is trained as in serving.py. Writes serving_processes.md beside this file.
"""

import argparse
import io
import os
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import requests
from machine import first_lines, goal

from serving import MODEL, make_bare, make_champion, make_studies, server, upload

HERE = Path(__file__)
PARTS = {
    "ProxyActor": "proxy", "glioflow:gateway": "gateway", "glioflow:predictor": "predictor",
    "ServeController": "controller", "glioflow:watcher": "watcher", "gcs_server": "Ray", "raylet": "Ray",
    "DashboardAgent": "Ray", "dashboard": "Ray",
}  # fmt: skip
CALLERS, UPLOADS, UPLOAD_BYTES = 8, 8, 200 * 2**20
MEGA, MOST_MIB = 2**20, 256  # the limit of an upload


def processes() -> dict[str, list[psutil.Process]]:
    """Return the endpoint's processes by part."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            name = f"{process.name()} {' '.join(process.cmdline())}"
        except psutil.Error:
            continue
        part = next((part for mark, part in PARTS.items() if mark in name), None)
        if part:
            found.setdefault(part, []).append(process)
    return found


def cpu_seconds(parts: dict[str, list[psutil.Process]]) -> dict[str, float]:
    return {part: sum(sum(each.cpu_times()[:2]) for each in members) for part, members in parts.items()}


def resident(parts: dict[str, list[psutil.Process]]) -> dict[str, float]:
    return {part: sum(each.memory_info().rss for each in members) / MEGA for part, members in parts.items()}


@contextmanager
def watching(parts: dict[str, list[psutil.Process]]) -> Iterator[dict[str, float]]:
    """Give the highest resident set of each part during a block, in MiB; complete when it ends."""
    peak, ended = resident(parts), threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            for part, now in resident(parts).items():
                peak[part] = max(peak[part], now)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def ask_for(request: requests.PreparedRequest, callers: int, seconds: float) -> tuple[int, list[int]]:
    """Ask without a pause; return the number of answers and their statuses."""
    until = time.monotonic() + seconds

    def call(_: int) -> list[int]:
        statuses = []
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < until or not statuses:
                statuses.append(session.send(request, timeout=600).status_code)
        return statuses

    with ThreadPoolExecutor(callers) as pool:
        statuses = [status for each in pool.map(call, range(callers)) for status in each]
    return len(statuses), sorted(set(statuses))


def large_upload(url: str) -> requests.PreparedRequest:
    """Return a request of 200 MB of noise in a zip, under the names of slices."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(4):
            archive.writestr(f"a_{number}.tif", os.urandom(UPLOAD_BYTES // 4))
    return requests.Request("POST", url, files=[("files", ("study.zip", packed.getvalue()))]).prepare()


def cpu_of_bare(folder: Path, files: list[Path], seconds: float) -> float:
    """Return the CPU time in ms that the network alone takes for a study, as the endpoint computes it."""
    run, before = make_bare(folder, files, engine=True), time.process_time()
    times, _ = run(seconds)
    return (time.process_time() - before) * 1000 / len(times)


def measure_endpoint(url: str, studies: dict[str, list[Path]], bare: dict[str, float], seconds: float) -> list[str]:
    parts = processes()
    names = [part for part in dict.fromkeys(PARTS.values()) if part in parts]
    jobs = {study: (upload(url, files), CALLERS) for study, files in studies.items()}
    jobs["200 MB"] = (large_upload(url), UPLOADS)
    cpu = [
        f"| CPU ms an answer | answers | {' | '.join(names)} | all | network alone | share |",
        "|---" * (len(names) + 5) + "|",
    ]
    memory = [f"| MiB at most | statuses | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    before = resident(parts)
    memory.append(f"| before | | {' | '.join(f'{before[name]:.0f}' for name in names)} |")
    goals = []
    for job, (request, callers) in jobs.items():
        ask_for(request, callers, 0)  # what is slow once only
        began = cpu_seconds(parts)
        with watching(parts) as peak:
            count, statuses = ask_for(request, callers, seconds)
        spent = {part: 1000 * (now - began[part]) / count for part, now in cpu_seconds(parts).items()}
        memory.append(f"| {callers} x {job} | {statuses} | {' | '.join(f'{peak[name]:.0f}' for name in names)} |")
        if job in bare:
            total = sum(spent.values())
            row = f"{sum(spent.values()):.1f} | {bare[job]:.1f} | {bare[job] / total:.0%}"
            cpu.append(f"| {job} | {count} | {' | '.join(f'{spent[name]:.1f}' for name in names)} | {row} |")
        else:
            grown = max(peak[name] - before[name] for name in ("proxy", "gateway"))
            text = f"{UPLOADS} uploads of 200 MB at once: proxy and gateway each grow by less than two largest uploads"
            goals.append(goal(text, f"{grown:.0f} of {2 * MOST_MIB} MiB", reached=grown < 2 * MOST_MIB))
    return [*cpu, "", *memory, "", "| goal | found | |", "|---|---|---|", *goals]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a registered model whose champion is served")
    parser.add_argument("--bundle", type=Path, help="its bundle")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=HERE.with_suffix(".md"))
    asked = parser.parse_args()
    load, began = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="glioflow-bench-") as scratch, ExitStack() as stack:
        work = Path(scratch)
        from glioflow.cluster import silence
        from glioflow.serving.ports import free_port

        if asked.model is None:
            os.environ["GLIOFLOW_HOME"] = str(work / "home")
            silence()
            asked.model, asked.bundle = MODEL, make_champion(work, asked.size)
        silence()
        studies, port = make_studies(work), str(free_port())
        bare = {study: cpu_of_bare(asked.bundle, files, asked.seconds) for study, files in studies.items()}
        command = [sys.executable, "-m", "glioflow", "serve", "--name", asked.model, "--port", port]
        stack.enter_context(server(command, f"http://127.0.0.1:{port}/readyz"))
        lines = measure_endpoint(f"http://127.0.0.1:{port}/v1/predict", studies, bare, asked.seconds)
    head = first_lines("Processes of the endpoint", (time.monotonic() - began) / 60, load)
    text = "\n".join([*head, *lines, ""])
    asked.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
