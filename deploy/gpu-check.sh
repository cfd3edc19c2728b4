#!/usr/bin/env bash
# Try GlioFlow on a machine with NVIDIA GPUs and print one report to paste into an issue.
#   deploy/gpu-check.sh [REPORT]      in the repository's root; about 20 minutes, most of it the benchmark and the search
# It installs into .venv, writes below a temporary folder, and needs no data.
set -uo pipefail
cd "$(dirname "$0")/.."
report=$(realpath -m "${1:-gpu-check.md}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GLIOFLOW_HOME=$work/home RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true NO_ALBUMENTATIONS_UPDATE=1

make setup || exit 1
bin=.venv/bin
$bin/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || {
  echo "PyTorch sees no GPU: check the driver with nvidia-smi"
  exit 2
}
gpus=$($bin/python -c 'import torch; print(torch.cuda.device_count())')
failed=0

# Run a step, keep its output in a file, and write one row of the table.
step() {
  local name=$1 began=$SECONDS
  shift
  echo "== $name"
  if "$@" >"$work/log" 2>&1; then state=passed; else state=failed failed=1; fi
  tail -n 3 "$work/log"
  [[ $state == passed ]] || { echo "### $name"; echo '```'; tail -n 40 "$work/log"; echo '```'; } >>"$work/failures"
  echo "| $name | $state | $((SECONDS - began)) s |" >>"$work/table"
}

$bin/glioflow data synthesize lgg "$work/lgg" --patients 12 --size 128 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
few=(-o split.method=counts -o "split.counts=[6, 3, 3]" -o training.epochs=3)
step "GPU tests" $bin/python -m pytest -q -m gpu tests/training/test_gpu.py
step "train on one GPU" $bin/glioflow train experiments/demo.yaml --data "$work/lgg" "${few[@]}" -o training.gpus_per_worker=1
step "search of 8 trials on quarters of a GPU" $bin/glioflow search experiments/demo.yaml --data "$work/lgg" --trials 8 \
  "${few[@]}" -o training.gpus_per_worker=0.25
if ((gpus > 1)); then
  step "train on all $gpus GPUs with DDP" $bin/glioflow train experiments/demo.yaml --data "$work/lgg" "${few[@]}" \
    -o training.gpus_per_worker=1 -o "training.num_workers=$gpus" -o "training.batch_size=$((16 * gpus))"
fi
step "benchmark" $bin/python benchmarks/gpu.py --out "$work/benchmark.md"

{
  echo "# GPU check, $(date -u +%F)"
  echo
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
  $bin/python -c 'import torch, platform; print("torch", torch.__version__, "Python", platform.python_version())'
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
