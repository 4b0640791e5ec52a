"""Flags that hold a secret, and the environment variable of each, so that none need stand on a command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

SECRETS: Mapping[str, str] = MappingProxyType(
    {"hub_token": "SWIFT_HUB_TOKEN", "api_key": "SWIFT_API_KEY", "eval_token": "SWIFT_EVAL_TOKEN"}
)
"""A flag that is not given takes the value of its variable."""


def secrets_of_environment(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The secret flags that the environment gives."""
    return {flag: env[name] for flag, name in SECRETS.items() if env.get(name)}
