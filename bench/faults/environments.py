"""python bench/faults/environments.py

Makes the environments of the peers in ~/.cache/swift/bench, each once: LLaMA-Factory as bench/defaults.py makes it, and
ms-swift 2.5.2 with the libraries of its time, but with this environment's torch.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools import ENVIRONMENTS

from defaults import PARTICIPANTS, _installed

OF_ITS_TIME = """
transformers==4.45.2 tokenizers==0.20.3 peft==0.12.0 trl==0.11.4 datasets==2.21.0 pyarrow==17.0.0 numpy==1.26.4
accelerate==1.0.1 modelscope==1.18.1 huggingface_hub==0.25.2 pandas==2.2.3 safetensors==0.4.5 matplotlib==3.9.2
tensorboard==2.18.0 setuptools==80.9.0 attrdict binpacking dacite einops jieba nltk oss2 rouge tyro
transformers_stream_generator==0.0.5 cpm_kernels requests tqdm openai==1.54.3 httpx==0.27.2 fastapi==0.115.4 uvicorn
simplejson sortedcontainers addict charset_normalizer importlib_metadata sentencepiece tiktoken zstandard pillow scipy
aiohttp bitsandbytes rich
"""
"""What ms-swift 2.5.2 asks for, and what that imports, as it was released when 2.5.2 was: within the bounds that 2.5.2
declares, and unpinned where nothing has changed since."""


def main() -> int:
    """Make both. -> 1 when one does not install."""
    factory = _installed("llamafactory", str(PARTICIPANTS["llamafactory"].package))
    python = str(ENVIRONMENTS / "llamafactory" / "bin" / "python")
    # What it asks for where weights are quantized.
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "bitsandbytes"]
    factory = factory and subprocess.run(pip).returncode == 0
    return int(not (_ms_swift() and factory))


def _ms_swift() -> bool:
    home = ENVIRONMENTS / "ms-swift-2.5"
    if (home / "ready").is_file():
        return True
    venv.create(home, with_pip=True, clear=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    torch = f"torch=={version('torch').partition('+')[0]}"
    for line in ([torch, *OF_ITS_TIME.split()], ["--no-deps", "ms-swift==2.5.2"]):
        result = subprocess.run([*pip, *line], capture_output=True, text=True)
        if result.returncode:
            print(f"ms-swift 2.5.2 does not install: {result.stderr.strip()[-1000:]}", flush=True)
            return False
    (home / "ready").touch()
    return True


if __name__ == "__main__":
    sys.exit(main())
