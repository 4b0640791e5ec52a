"""What the server prints when it is ready."""

from __future__ import annotations

import shlex

import pytest

from swift.plan.serve import ServePlan
from swift.serving.banner import greeting, url


@pytest.mark.parametrize(
    ("host", "given"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("example.org", "example.org")]
)
def test_address_is_one_that_a_client_can_use(host: str, given: str) -> None:
    assert url(ServePlan(model_name="m", host=host), 80) == f"http://{given}:80"


def test_key_is_shown_to_a_person_and_not_to_a_log() -> None:
    plan = ServePlan(model_name="m", api_key="sk-secret")
    for_person = greeting(plan, 80, ("m",), show_key=True)
    curl = next(line for line in for_person.splitlines() if line.startswith("curl"))
    assert "Authorization: Bearer sk-secret" in shlex.split(curl)
    for_log = greeting(plan, 80, ("m",), show_key=False)
    assert "sk-secret" not in for_log and "OPENAI_API_KEY" in for_log
    assert "sk-secret" not in repr(plan)


def test_a_key_with_marks_of_the_shell_arrives_whole() -> None:
    key = """a"b$c'd `e`"""
    text = greeting(ServePlan(model_name="m", api_key=key, ssl_certfile="my cert.pem"), 80, ("m",), show_key=True)
    curl = next(line for line in text.splitlines() if line.startswith("curl"))
    assert f"Authorization: Bearer {key}" in shlex.split(curl)
    assert "my cert.pem" in shlex.split(curl)


def test_the_tuned_model_is_the_one_to_ask() -> None:
    assert '"model": "default-lora"' in greeting(
        ServePlan(model_name="m"), 80, ("m", "default-lora", "b"), show_key=False
    )


@pytest.mark.parametrize(
    "plan", [ServePlan(model_name="m"), ServePlan(model_name="a'b", ssl_certfile="c.pem", api_key="k")]
)
def test_program_is_a_program(plan: ServePlan) -> None:
    text = greeting(plan, 80, (plan.model_name,), show_key=False)
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(("import ", "from ")))
    compile("\n".join(lines[first:]), "printed", "exec")
