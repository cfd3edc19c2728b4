#!/usr/bin/env bash
# Install what requirements.lock pins into the active environment; run by the Dockerfile.
#   UV            the uv to use; default: uv
#   UV_FLAGS      more for `uv pip install`, such as --system
#   TORCH_INDEX   where set, torch and torchvision (in the locked versions) come from this index, and CUDA's packages are left out
set -euo pipefail
cd "$(dirname "$0")/.."
read -r -a flags <<< "${UV_FLAGS:-}"
install=("${UV:-uv}" pip install "${flags[@]}")
if [ -z "${TORCH_INDEX:-}" ]; then
  "${install[@]}" --require-hashes -r requirements.lock
else
  lock="$(mktemp)"
  trap 'rm -f "$lock"' EXIT
  awk '/^[a-zA-Z]/ { skip = /^(cuda-|nvidia-|triton==|torch==|torchvision==)/ } !skip' requirements.lock > "$lock"
  "${install[@]}" --require-hashes --no-deps -r "$lock"
  sed -nE 's/^(torch(vision)?==[^ ;]+).*/\1/p' requirements.lock | "${install[@]}" --no-deps --index-url "$TORCH_INDEX" -r -
fi
