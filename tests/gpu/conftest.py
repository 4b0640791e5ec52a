"""What is here needs a GPU: `make test-gpu`, on a machine that has one."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

PACKAGES = ("torch", "transformers", "peft", "flash-attn", "bitsandbytes", "liger-kernel", "hqq")


def pytest_report_header() -> list[str]:
    """What the tests below ran on; those whose package is missing are skipped."""
    if not torch.cuda.is_available():
        return ["GPU: none here, so every test below is skipped"]
    names = {torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}
    found = f"{torch.cuda.device_count()} x {', '.join(sorted(names))}, CUDA {torch.version.cuda}"
    return [f"GPU: {found}", f"with {', '.join(f'{name} {_version(name)}' for name in PACKAGES)}"]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gpu/" in item.nodeid:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
