"""Where one answer's time goes beside the network: what gateway and predictor do, in one thread, profiled.

Run: python benchmarks/serving_profile.py [--studies 10] [--size 256] [--top 25]

Reads, checks, segments, measures and encodes as the endpoint does, with the starter model and its fastest engine here,
for lone slices and for studies of 60 slices, and prints for both the functions of GlioFlow in which the most time was
spent, in ms of CPU for an answer: with what they call, and alone. The web framework, Serve, and the calls between
processes are left out: serving_processes.py measures them.
"""

import argparse
import cProfile
import io
import json
import os
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def profile(ask: Callable[[], object], count: int, top: int) -> list[str]:
    """Return a table of the functions that take the longest; times of the profile are a little longer than without."""
    ask()
    began, before = time.perf_counter(), time.process_time()
    for _ in range(count):
        ask()
    clock, cpu = (1000 * spent / count for spent in (time.perf_counter() - began, time.process_time() - before))
    watched = cProfile.Profile(time.process_time)  # which other work on the machine hardly changes
    for _ in range(count):
        watched.runcall(ask)
    lines = [f"{clock:.1f} ms an answer, {cpu:.1f} ms of CPU", ""]
    lines += ["| function | calls | ms | ms alone |", "|---|---|---|---|"]
    rows: list[Any] = sorted(pstats.Stats(watched).stats.items(), key=lambda pair: -pair[1][3])  # type: ignore[attr-defined]
    for (file, _, name), (_, calls, alone, whole, _) in [row for row in rows if "glioflow" in row[0][0]][:top]:
        times = f"{1e3 * whole / count:.2f} | {1e3 * alone / count:.2f}"
        lines.append(f"| {Path(file).stem}.{name} | {calls / count:g} | {times} |")
    return lines


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--top", type=int, default=25)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.environ["GLIOFLOW_HOME"] = f"{name}/home"
        import torch

        from glioflow import bundle
        from glioflow.bundle.answer import answer_to_json
        from glioflow.bundle.encoded_mask import encode_mask, legend_of
        from glioflow.bundle.starter import find_starter
        from glioflow.bundle.study_checks import conform
        from glioflow.cluster.scratch import study_folder
        from glioflow.data.synthetic.cohort import synthesize_lgg
        from glioflow.serving.engine.batching import BatchedPredictor
        from glioflow.serving.engine.selection import choose_engine
        from glioflow.serving.http.uploads import read_uploads
        from glioflow.serving.settings import Limits

        torch.set_num_threads(1)  # threads of a team wait for each other where other work takes a core
        synthesize_lgg(Path(name) / "cohort", patients=1, seed=1, size=arguments.size, slices=(60, 60))
        folder = next(path for path in (Path(name) / "cohort").iterdir() if path.is_dir())
        slices = [file for file in sorted(folder.glob("*.tif")) if "_mask" not in file.name]
        loaded = bundle.load(find_starter())
        predictor = BatchedPredictor(loaded.description, loaded.network, loaded.survival)
        engine, legend, limits = choose_engine(predictor), legend_of(loaded.description), Limits()

        def answer(form: list[tuple[str, bytes]]) -> bytes:
            with study_folder() as scratch:
                uploads = [(file, io.BytesIO(content)) for file, content in form]
                case = read_uploads(uploads, Path(scratch), limits)
            case = conform(case, loaded.description)
            prediction = predictor.predict(case)
            given = answer_to_json(case, prediction, {"name": "starter", "version": 0, "run_id": None})
            given["mask"] = encode_mask(prediction.segmentation.labels, case, "rle", legend)
            return json.dumps(given).encode()

        for what, files in (("a lone slice", slices[30:31]), ("60 slices", slices)):
            form = [(file.name, file.read_bytes()) for file in files]
            lines = profile(lambda form=form: answer(form), arguments.studies, arguments.top)  # type: ignore[misc]
            print(f"\n{what}, {engine.runtime} {engine.precision}:", *lines, sep="\n")


if __name__ == "__main__":
    main()
