"""Reads the few words of a command beyond the contract; a mistake among them is an error like any other."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from swift.core.errors import SwiftError


class OwnParser(argparse.ArgumentParser):
    """The words of `swift COMMAND`. Raises SwiftError."""

    def __init__(self, command: str):
        super().__init__(add_help=False, allow_abbrev=False)
        self.register("type", int, _whole_number)
        self._command = command

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process."""
        message = re.sub(r"^argument ([^:/\s]+)[^:]*: ", r"\1 ", message)
        raise SwiftError(message, where=f"swift {self._command}", next=f"swift {self._command} --help")


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a whole number, not `{text}`") from None
