"""How the threads of a process wait for each other, which must be said before torch is loaded."""

from __future__ import annotations

from collections.abc import MutableMapping

POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""What OpenMP reads about it, once, when its library is loaded: GNU's, which torch's wheels bring, and LLVM's."""


BRIEFLY = {"GOMP_SPINCOUNT": "4000", "KMP_BLOCKTIME": "0"}
"""GNU's threads look four thousand times, tens of microseconds, whether they are needed again; LLVM's sleep at once."""


def wait_briefly(env: MutableMapping[str, str]) -> None:
    """Let threads sleep that wait for longer than a moment, unless the user has said how they should wait.

    By default they spin, and where another program wants the same cores, they burn what the thread they wait for needs.
    To sleep at once costs a training step 14 % on a quiet machine, and a single answer a third of its speed.
    """
    if not any(env.get(name) for name in POLICIES):
        for name in POLICIES:  # an empty value would be read
            env.pop(name, None)
        env.update(BRIEFLY)
