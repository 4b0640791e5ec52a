"""How the threads of a process wait for each other, which must be said before torch is loaded."""

from __future__ import annotations

from collections.abc import MutableMapping

POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""What OpenMP reads about it, once, when its library is loaded: GNU's, which torch's wheels bring, and LLVM's."""


def wait_passively(env: MutableMapping[str, str]) -> None:
    """Let threads sleep while they wait, unless the user has said how they should.

    By default they spin, and where another program wants the same cores, they burn what the thread they wait for needs.
    """
    if not any(env.get(name) for name in POLICIES):
        env["OMP_WAIT_POLICY"] = "PASSIVE"
