#!/usr/bin/env bash
# What a machine with a GPU has to show, in at most six minutes: the environment, a part of the test suite on the provider, and
# the benchmark on a convolutional net and a transformer in float16, with one and with two workers a device.
#
#   benchmarks/gpu_check.sh [provider, default cuda] [distribution, default onnxruntime-gpu] > gpu_check.txt
#
# It makes an environment of its own in .venv-gpu; what it prints belongs into docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."
provider=${1:-cuda}
distribution=${2:-onnxruntime-gpu}
began=$SECONDS
left() { echo $((360 - (SECONDS - began))); }

echo "== environment"
date -u
uname -a
nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv 2>/dev/null || echo "no nvidia-smi"
AIS_BENCH_WITHOUT_EMULATOR=1 make --silent library
test -x .venv-gpu/bin/python || python3 -m venv .venv-gpu
.venv-gpu/bin/python -m pip install --quiet --group gpu "$distribution"
pwd > "$(.venv-gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ais_bench.pth"
# CUDA's libraries as wheels lie in folders that the loader does not search.
site=$(.venv-gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
LD_LIBRARY_PATH=$(find "$site/nvidia" -maxdepth 2 -name lib 2>/dev/null | paste -sd: -):${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH
.venv-gpu/bin/python -m ais_bench devices

echo "== tests ($(left) s left)"
AIS_BENCH_GPU_PROVIDER=$provider timeout "$(($(left) / 3))" \
  .venv-gpu/bin/python -m pytest -q tests/providers/test_gpu.py || echo "the tests did not all pass, or not in time"

echo "== benchmark ($(left) s left)"
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
.venv-gpu/bin/python benchmarks/gpu_models.py "$models"
for model in resnet50 transformer; do
  timeout "$(($(left) / 2 > 20 ? $(left) / 2 : 20))" .venv-gpu/bin/python benchmarks/bench_providers.py \
    "$models/$model.onnx" --provider "$provider" --seconds 3 || echo "$model: not in time"
done
echo "== done after $((SECONDS - began)) s"
