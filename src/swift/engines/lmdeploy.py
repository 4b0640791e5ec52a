"""The LMDeploy backend: its `AsyncEngine` in this process, behind the Engine protocol. It needs a CUDA device.

The config classes of LMDeploy are built through `config`, which checks each name against the class's fields: some of
them take unknown keywords without a word.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from swift.core.errors import SwiftError


def config(cls: type, **values: Any) -> Any:
    """`cls(**values)`, once every name is known to be a field of `cls`. Raises SwiftError naming the one that is not."""
    known = {field.name for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise SwiftError(f"this LMDeploy's {cls.__name__} has no field `{name}`", next="pip install 'lmdeploy>=0.18,<0.19'")
    return cls(**values)
