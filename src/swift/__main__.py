"""`python -m swift …` is `swift …`."""

from __future__ import annotations

from swift.cli import script

if __name__ == "__main__":
    script()
