#!/bin/bash
# Measure kensa on a GPU, in at most six minutes: benchmarks/gpu-README.md.
#
#   benchmarks/gpu.sh [FOLDER] [further options of benchmarks/gpu.py]
#
# FOLDER (gpu-results) receives the results. Wheels in the folder that WHEELS names (.whl) are put into an
# environment of their own beside the machine's packages; nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
wheels=${WHEELS:-.whl}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G "$wheels/*.whl" > /dev/null; then
    "${PYTHON:-python3}" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
fi
export PYTHONPATH="$site" PYTHONUNBUFFERED=1
"${PYTHON:-python3}" -m pip list --format=freeze --path "$site" > "$out/packages.txt"
"${PYTHON:-python3}" -m pip list --format=freeze >> "$out/packages.txt"
"${PYTHON:-python3}" -m benchmarks.gpu --out "$out" "${@:2}"
