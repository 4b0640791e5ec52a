"""The environment variables of 2.5's web page: they count where their flag is not given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from swift.core.errors import SwiftError
from swift.params.argv import ParsedFlag
from swift.params.commands import Command
from swift.params.values import BadValue, from_words, shown

VARIABLES: Mapping[str, str] = MappingProxyType(
    {"lang": "SWIFT_UI_LANG", "share": "WEBUI_SHARE", "host": "WEBUI_SERVER", "port": "WEBUI_PORT"}
)
"""A flag of `swift web-ui`, and the variable that stands for it."""


def read_variables(
    command: Command, given: Mapping[str, ParsedFlag], env: Mapping[str, str] = os.environ
) -> tuple[dict[str, Any], list[str], list[SwiftError]]:
    """The values of the flags that the environment gives, what is to be told, and what is wrong."""
    values: dict[str, Any] = {}
    told: list[str] = []
    errors: list[SwiftError] = []
    if command.name != "web-ui":
        return values, told, errors
    for name, variable in VARIABLES.items():
        if not env.get(variable):
            continue
        if name in given:
            told.append(f"{variable} does not count beside --{name} {shown(given[name].value)}")
            continue
        try:
            values[name] = from_words(command.flags[name], [env[variable]])
        except BadValue as bad:
            errors.append(SwiftError(f"{variable} {bad.what}", where="the environment", next=bad.next))
    return values, told, errors
