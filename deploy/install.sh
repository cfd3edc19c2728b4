#!/usr/bin/env bash
# Install the packages pinned in requirements.lock into the active environment; the Dockerfile runs this.
#   UV            the uv to use; default: uv
#   UV_FLAGS      more options for `uv pip install`, such as --system
#   TORCH_INDEX   if set, torch and torchvision (in the locked versions) come from this index, without CUDA's packages
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
