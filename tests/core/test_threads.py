"""Waiting threads soon sleep, unless the user has said how they should wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from swift.core.threads import BRIEFLY, POLICIES, wait_briefly


@pytest.mark.parametrize("name", POLICIES)
def test_the_users_own_value_stands(name: str) -> None:
    env = {name: "ACTIVE"}
    wait_briefly(env)
    assert env == {name: "ACTIVE"}


def test_an_empty_value_says_nothing() -> None:
    env = {"OMP_WAIT_POLICY": ""}
    wait_briefly(env)
    assert env == BRIEFLY


def test_a_command_says_it_before_torch_is_loaded() -> None:
    code = (
        "import os, sys; from swift import cli; cli.main(['infer', '--model_id_or_path', '/no/such/model']);"
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    env = {name: value for name, value in os.environ.items() if name not in POLICIES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == [BRIEFLY["GOMP_SPINCOUNT"], "False"]
    assert "/no/such/model" in done.stderr
