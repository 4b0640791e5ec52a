"""What the server says when it is ready: where it listens, and two ways to ask it that work as printed."""

from __future__ import annotations

import json
import shlex

from swift.plan.infer import DEFAULT_LORA
from swift.plan.serve import ServePlan


def url(plan: ServePlan, port: int) -> str:
    """The address for a client on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(plan.host, plan.host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{'https' if plan.ssl_certfile else 'http'}://{host}:{port}"


def greeting(plan: ServePlan, port: int, models: tuple[str, ...], *, show_key: bool, scores: bool = False) -> str:
    """The lines to print: for a reward model (`scores`) how to score, else how to chat.

    The key itself is shown only where `show_key` says so (a terminal, not a log).
    """
    base = f"{url(plan, port)}/v1"
    model = DEFAULT_LORA if DEFAULT_LORA in models else models[0]
    hides = plan.api_key is not None and not show_key
    if scores:
        route, program = "score", _scores
        body: dict[str, object] = {"model": model, "text_1": "Who are you?", "text_2": ["A model.", "None of that."]}
    else:
        route, program = "chat/completions", _chats
        body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}]}
    curl = ["curl", f"{base}/{route}", "-H 'Content-Type: application/json'"]
    if plan.api_key is not None:
        shown = shlex.quote(f"Authorization: Bearer {plan.api_key}")
        curl.append(f"-H {shown}" if show_key else '-H "Authorization: Bearer $OPENAI_API_KEY"')
    if plan.ssl_certfile is not None:
        curl.append(f"--cacert {shlex.quote(plan.ssl_certfile)}")
    curl.append(f"-d {shlex.quote(json.dumps(body))}")
    key = 'os.environ["OPENAI_API_KEY"]' if hides else json.dumps(plan.api_key)
    lines = [
        *(f"Serving {', '.join(models)} at {base}", ""),
        *(["The key is taken from OPENAI_API_KEY here.", ""] if hides else []),
        *(" ".join(curl), ""),
        *(["import os"] if hides else []),
        *program(plan, base, key, body),
        "",
    ]
    return "\n".join(lines)


def _chats(plan: ServePlan, base: str, key: str, body: dict[str, object]) -> list[str]:
    """A program that chats, without the import of `os`; `key` is the expression of the key."""
    arguments = [f'base_url="{base}"', f"api_key={key}" if plan.api_key is not None else 'api_key="none"']
    if plan.ssl_certfile is not None:
        arguments.append(f"http_client=httpx.Client(verify={json.dumps(plan.ssl_certfile)})")
    model, messages = json.dumps(body["model"]), json.dumps(body["messages"])
    return [
        *(["import httpx"] if plan.ssl_certfile is not None else []),
        "from openai import OpenAI",
        f"client = OpenAI({', '.join(arguments)})",
        f"answer = client.chat.completions.create(model={model}, messages={messages})",
        "print(answer.choices[0].message.content)",
    ]


def _scores(plan: ServePlan, base: str, key: str, body: dict[str, object]) -> list[str]:
    """A program that scores, as above."""
    arguments = [f'"{base}/score"', f"json={json.dumps(body)}"]
    if plan.api_key is not None:
        arguments.append(f'headers={{"Authorization": "Bearer " + {key}}}')
    if plan.ssl_certfile is not None:
        arguments.append(f"verify={json.dumps(plan.ssl_certfile)}")
    return ["import httpx", f"answer = httpx.post({', '.join(arguments)})", 'print(answer.json()["data"])']
