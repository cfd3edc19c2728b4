#!/usr/bin/env bash
# Test GlioFlow on a machine with NVIDIA GPUs and write a report to paste into an issue.
#   deploy/gpu-check.sh [REPORT]      from the repository's root; about 20 minutes, mostly the benchmark and the search
# It installs into .venv, writes to a temporary folder, and needs no data. SETUP=no uses the python and the glioflow on
# the PATH; BENCHMARK=no skips the benchmark.
set -uo pipefail
cd "$(dirname "$0")/.."
report=$(realpath -m "${1:-gpu-check.md}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GLIOFLOW_HOME=$work/home RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true NO_ALBUMENTATIONS_UPDATE=1

nvidia-smi -L >/dev/null 2>&1 || {
  echo "nvidia-smi shows no GPU here: install NVIDIA's driver, or run this on a machine that has a GPU"
  exit 2
}
if [[ ${SETUP:-yes} == yes ]]; then
  make setup || exit 1
  export PATH=$PWD/.venv/bin:$PATH
fi
python -c 'import torch' || {
  echo "the python on the PATH cannot import PyTorch: leave out SETUP=no, or install GlioFlow there"
  exit 1
}
python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || {
  echo "PyTorch does not see the GPU that nvidia-smi shows: the driver must be at least as new as PyTorch's CUDA," \
    "which is $(python -c 'import torch; print(torch.version.cuda)' 2>/dev/null)"
  exit 2
}
gpus=$(python -c 'import torch; print(torch.cuda.device_count())')
failed=0

# Run a step, keep its output in a file, and add a row to the table.
step() {
  local name=$1 began=$SECONDS
  shift
  echo "== $name"
  if "$@" >"$work/log" 2>&1; then state=passed; else state=failed failed=1; fi
  tail -n 3 "$work/log"
  [[ $state == passed ]] || { echo "### $name"; echo '```'; tail -n 40 "$work/log"; echo '```'; } >>"$work/failures"
  echo "| $name | $state | $((SECONDS - began)) s |" >>"$work/table"
}

train() {
  glioflow train "$experiment" --data "$work/lgg" -o split.method=counts -o "split.counts=[8, 2, 2]" -o training.epochs=12 \
    -o training.gpus_per_worker=1 --json >"$work/trained"
}

promote() {
  local run
  run=$(python -c 'import json, sys; print(json.load(sys.stdin)["run_id"])' <"$work/trained") || return
  glioflow register "$run" --name gpu-check && glioflow promote gpu-check && glioflow predict gpu-check "$study" --out "$work/predicted"
}

# Serve the champion on half a GPU, predict one study, and stop it.
serve() {
  local port=8731 server answered=1
  glioflow serve --name gpu-check --port $port --gpus 0.5 >"$work/served" 2>&1 &
  server=$!
  for _ in $(seq 240); do
    python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/readyz', timeout=5)" 2>/dev/null && break
    kill -0 $server 2>/dev/null || break
    sleep 1
  done
  glioflow predict http://127.0.0.1:$port "$study" --out "$work/answered" && answered=0
  kill -TERM $server 2>/dev/null && wait $server # a job in the background ignores Ctrl-C's signal
  [[ $answered == 0 ]] || cat "$work/served"
  return $answered
}

glioflow data synthesize lgg "$work/lgg" --patients 12 --size 128 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
study=$(find "$work/lgg" -mindepth 1 -maxdepth 1 -type d | sort | head -n 1)
experiment=experiments/demo.yaml
few=(-o split.method=counts -o "split.counts=[6, 3, 3]" -o training.epochs=3)
step "GPU tests" python -m pytest -q -n 4 -m gpu tests/training/test_gpu.py
step "train on one GPU" train
step "register, promote, predict" promote
step "serve on half a GPU, one study" serve
step "search of 8 trials on quarters of a GPU" glioflow search $experiment --data "$work/lgg" --trials 8 \
  "${few[@]}" -o training.gpus_per_worker=0.25
step "cross-validation of 3 folds on thirds of a GPU" glioflow crossval $experiment --data "$work/lgg" --folds 3 \
  -o training.epochs=3 -o training.gpus_per_worker=0.33
if ((gpus > 1)); then
  step "train on all $gpus GPUs with DDP" glioflow train $experiment --data "$work/lgg" "${few[@]}" \
    -o training.gpus_per_worker=1 -o "training.num_workers=$gpus" -o "training.batch_size=$((16 * gpus))"
fi
if [[ ${BENCHMARK:-yes} == yes ]]; then
  step "benchmark" python benchmarks/gpu.py --compile --out "$work/benchmark.md"
fi

{
  echo "# GPU check, $(date -u +%F)"
  echo
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
  python -c 'import torch, platform; print("torch", torch.__version__, "Python", platform.python_version())'
  git rev-parse HEAD 2>/dev/null
  echo
  echo "| step | state | time |"
  echo "|---|---|---|"
  cat "$work/table"
  cat "$work/failures" 2>/dev/null
  cat "$work/benchmark.md" 2>/dev/null
} >"$report"
echo "report: $report"
exit $failed
