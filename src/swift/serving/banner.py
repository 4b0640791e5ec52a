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


def greeting(plan: ServePlan, port: int, models: tuple[str, ...], *, show_key: bool) -> str:
    """The lines to print. The key itself is shown only where `show_key` says so (a terminal, not a log)."""
    base = f"{url(plan, port)}/v1"
    model = DEFAULT_LORA if DEFAULT_LORA in models else models[0]
    messages = [{"role": "user", "content": "Who are you?"}]
    body = json.dumps({"model": model, "messages": messages})
    python_key = 'os.environ["OPENAI_API_KEY"]' if not show_key else json.dumps(plan.api_key)
    curl = ["curl", f"{base}/chat/completions", "-H 'Content-Type: application/json'"]
    if plan.api_key is not None:
        shown = shlex.quote(f"Authorization: Bearer {plan.api_key}")
        curl.append(f"-H {shown}" if show_key else '-H "Authorization: Bearer $OPENAI_API_KEY"')
    if plan.ssl_certfile is not None:
        curl.append(f"--cacert {shlex.quote(plan.ssl_certfile)}")
    curl.append(f"-d {shlex.quote(body)}")
    arguments = [f'base_url="{base}"', f"api_key={python_key}" if plan.api_key is not None else 'api_key="none"']
    imports = ["from openai import OpenAI"]
    if plan.api_key is not None and not show_key:
        imports.insert(0, "import os")
    if plan.ssl_certfile is not None:
        imports.insert(-1, "import httpx")
        arguments.append(f"http_client=httpx.Client(verify={json.dumps(plan.ssl_certfile)})")
    hidden = ["The key is taken from OPENAI_API_KEY here.", ""] if plan.api_key is not None and not show_key else []
    return "\n".join(
        [
            f"Serving {', '.join(models)} at {base}",
            "",
            *hidden,
            " ".join(curl),
            "",
            *imports,
            f"client = OpenAI({', '.join(arguments)})",
            f"answer = client.chat.completions.create(model={json.dumps(model)}, messages={json.dumps(messages)})",
            "print(answer.choices[0].message.content)",
            "",
        ]
    )
