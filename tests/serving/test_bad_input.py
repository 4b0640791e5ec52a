"""Whatever is sent, the answer has the right status, names the field, and the server goes on."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import socket
import ssl
import subprocess
from typing import Any

import httpx
import pytest

from swift.core.errors import SwiftError
from swift.plan.serve import ServePlan
from swift.serving import middleware, server
from swift.serving.service import Service

USER = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
NAMED = {"type": "function", "function": {"name": "f"}}

CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": i, "type": "function", "function": {"name": i, "arguments": "{}"}} for i in ("c1", "c2")],
}

NO_JSON = {"role": "assistant", "function_call": {"name": "f", "arguments": "x = 1"}}


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": USER, **fields}).encode()


BAD = [
    (b"", 422, "body"),
    (b"{", 400, "body"),
    (b"nonsense", 400, "body"),
    (b'{"model": "tiny", "messages": [', 400, "body"),
    (b'{"model": "tiny"} trailing', 400, "body"),
    (b"\xff\xfe\x00", 400, "body"),
    (b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff"}]}', 400, "body"),
    (b"[" * 100_000, 400, "body"),
    (b'{"max_tokens": ' + b"9" * 5000 + b"}", 400, "body"),
    (b"[]", 422, "body"),
    (b"null", 422, "body"),
    (b'"text"', 422, "body"),
    (b'{"model": "tiny"}', 422, "messages"),
    (json.dumps({"messages": USER}).encode(), 422, "model"),
    (chat(messages=[]), 422, "messages"),
    (chat(messages="hi"), 422, "messages"),
    (chat(messages=[1]), 422, "messages[0]"),
    (chat(messages=[{"content": "hi"}]), 422, "messages[0].role"),
    (chat(messages=[{"role": "robot", "content": "hi"}]), 422, "messages[0].role"),
    (chat(messages=[{"role": "user", "content": "\ud800"}]), 422, "body"),
    (chat(messages=[{"role": "user"}]), 400, "messages[0].content"),
    (chat(messages=[{"role": "system", "content": "only"}]), 400, "messages"),
    (chat(messages=[{"role": "tool", "content": "of nothing"}]), 400, "messages"),
    (chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]), 400, "messages"),
    (chat(images=["x.png"]), 400, "images"),
    (chat(model="nope"), 404, "model"),
    (chat(model=3), 422, "model"),
    (chat(max_tokens=-1), 422, "max_tokens"),
    (chat(max_tokens="many"), 422, "max_tokens"),
    (chat(temperature=-0.1), 422, "temperature"),
    (b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": NaN}', 422, "temperature"),
    (chat(top_p=1.5), 422, "top_p"),
    (chat(n=0), 422, "n"),
    (chat(n=100_000), 422, "n"),
    (chat(seed=2**70), 422, "seed"),
    (chat(top_logprobs=2), 400, "top_logprobs"),
    (chat(logprobs=True, top_logprobs=21), 400, "top_logprobs"),
    (chat(stream="perhaps"), 422, "stream"),
    (chat(stream_options={"include_usage": True}), 400, "stream_options"),
    (chat(logit_bias={"5": 101}), 422, "logit_bias.5"),
    (chat(logit_bias={"hello": 1}), 422, "logit_bias.hello"),
    (chat(logit_bias={"100000000": 1}), 400, "logit_bias"),
    (chat(functions=[{"name": "f"}], tools=[TOOL]), 400, "functions"),
    (chat(functions=[{}]), 422, "functions[0].name"),
    (chat(function_call={"name": "f"}), 400, "function_call"),
    (chat(functions=[{"name": "f"}], function_call={"name": "g"}), 400, "function_call.name"),
    (chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]), 400, "tools[0]"),
    (chat(tools=[{"type": "function"}]), 422, "tools[0].function"),
    (chat(tools=[{"type": "magic", "function": {"name": "f"}}]), 422, "tools[0].type"),
    (chat(tools=[TOOL, TOOL]), 400, "tools"),
    (chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "zzz"}}), 400, "tool_choice"),
    (chat(tool_choice="required"), 400, "tool_choice"),
    (chat(tools=[TOOL], guided_regex="a"), 400, "guided_regex"),
    (chat(guided_choice=["a"], response_format={"type": "json_object"}), 400, "guided_choice"),
    (chat(guided_json="{"), 400, "guided_json"),
    (chat(guided_choice=[1]), 422, "guided_choice[0]"),
    (chat(structured_outputs={"grammar": "root"}), 400, "structured_outputs.grammar"),
    (chat(structured_outputs={"json": {}, "regex": "a", "choice": ["b"]}), 400, "structured_outputs"),
    (chat(response_format={"type": "json_object", "strict": True}), 422, "response_format"),
    (chat(response_format={"type": "json_schema", "json_schema": {"schema": {}, "nam": 1}}), 422, "response_format"),
    (chat(response_format={"type": "json_schema"}), 400, "response_format"),
    (chat(response_format={"type": "xml"}), 422, "response_format"),
    (chat(best_of=1, n=2), 400, "best_of"),
    (chat(min_p=1.1), 422, "min_p"),
    (chat(guided_grammar="root"), 400, "guided_grammar"),
    (chat(modalities=["text", "audio"]), 400, "modalities"),
    (chat(echo=True), 400, "echo"),
    (chat(suffix="x"), 400, "suffix"),
    (chat(messages=[*USER, CALLING, {"role": "tool", "tool_call_id": "c9", "content": "x"}]), 400, "messages[2].tool"),
    (chat(messages=[*USER, CALLING, {"role": "tool", "tool_call_id": "c1", "content": "x"}]), 400, "messages[1].tool"),
    (
        chat(messages=[*USER, NO_JSON, {"role": "function", "name": "f", "content": "x"}]),
        400,
        "messages[1].function_call",
    ),
]


@pytest.mark.parametrize(("body", "status", "param"), BAD)
def test_bad_chat_body(module_server, body: bytes, status: int, param: str) -> None:
    answer = httpx.post(
        f"{module_server.url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    given = answer.json()
    assert given["error"]["param"].startswith(param), given
    assert given["object"] == "error" and given["message"] == given["error"]["message"]
    assert module_server.engine.running == 0 and module_server.service.gate.answers == 0


@pytest.mark.parametrize(
    ("prompt", "fields", "status", "param"),
    [
        ([], {}, 422, "prompt"),
        (3, {}, 422, "prompt"),
        ([1, "a"], {}, 422, "prompt"),
        ("", {}, 400, "prompt"),
        ([10**6], {}, 400, "prompt"),
        ([-1], {}, 422, "prompt"),
        ("x", {"suffix": "y"}, 400, "suffix"),
        ("x", {"logprobs": 21}, 400, "logprobs"),
        ("x", {"echo": True, "logprobs": 1, "stream": True}, 400, "echo"),
        ("x", {"echo": True, "logprobs": True}, 400, "echo"),
        ("x", {"max_tokens": 0}, 400, "max_tokens"),
        ("x y", {"echo": True, "logprobs": 1}, 400, "echo"),  # this engine does not tell
    ],
)
def test_bad_completion(module_server, prompt: Any, fields: dict[str, Any], status: int, param: str) -> None:
    answer = httpx.post(f"{module_server.url}/v1/completions", json={"model": "tiny", "prompt": prompt, **fields})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"].startswith(param)


def test_no_turns_where_the_model_has_none(start) -> None:
    running = start(is_chat=False)
    turns = [*USER, {"role": "assistant", "content": "x"}, *USER]
    answer = httpx.post(f"{running.url}/v1/chat/completions", json={"model": "tiny", "messages": turns})
    assert answer.status_code == 400 and "`completions` API" in answer.json()["message"]
    assert httpx.post(f"{running.url}/v1/chat/completions", json={"model": "tiny", "messages": USER}).status_code == 200


def test_prompt_longer_than_the_context(module_server) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "word " * 600}]}
    answer = httpx.post(f"{module_server.url}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["param"] == "messages"


@pytest.mark.parametrize("chunked", [False, True])
def test_request_that_is_too_large(module_server, chunked: bool) -> None:
    text = b"x" * (module_server.service.max_body_bytes + 1)
    content = (text[at : at + 65536] for at in range(0, len(text), 65536)) if chunked else text
    answer = httpx.post(
        f"{module_server.url}/v1/completions", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["param"] == "body"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"messages": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "nested too deeply"),
        (b'{"messages": "\xff"}', "no UTF-8"),
    ],
)
def test_json_that_cannot_be_read(module_server, body: bytes, reason: str) -> None:
    answer = httpx.post(f"{module_server.url}/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "body", "json_invalid")
    assert reason in error["message"]


def test_a_body_that_is_compressed_is_not_unpacked(module_server) -> None:
    packed = gzip.compress(b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}')
    answer = httpx.post(
        f"{module_server.url}/v1/chat/completions", content=packed, headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 415 and answer.json()["error"]["param"] == "Content-Encoding"
    assert "compressed (gzip)" in answer.json()["error"]["message"]


def test_wrong_path_method_and_type(module_server) -> None:
    assert httpx.get(f"{module_server.url}/nope").status_code == 404
    assert httpx.get(f"{module_server.url}/nope").json()["error"]["param"] == "path"
    assert httpx.get(f"{module_server.url}/v1/chat/completions").status_code == 405
    assert httpx.get(f"{module_server.url}/v1/models/nope").status_code == 404


def test_not_http_at_all(module_server) -> None:
    host, port = module_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert httpx.get(f"{module_server.url}/health").status_code == 200


def test_slow_head_and_slow_body_are_cut(start, monkeypatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    running = start()
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        assert slow.recv(100) == b""
    with socket.create_connection((host, int(port)), timeout=5) as slow:
        head = (
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
        )
        slow.sendall(head + b"{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert httpx.get(f"{running.url}/health").status_code == 200


def test_key_guards_everything_but_health(start) -> None:
    running = start(api_key="schlüssel")
    good = {"Authorization": "Bearer schlüssel".encode()}
    for path in ("/v1/models", "/metrics", "/version", "/docs", "/openapi.json", "/nope"):
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": b"Bearer \xff\xfe"}):
            answer = httpx.get(running.url + path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(running.url + path, headers=good).status_code == (404 if path == "/nope" else 200)
    assert httpx.get(f"{running.url}/health").status_code == 200
    assert httpx.post(f"{running.url}/v1/chat/completions", content=chat()).status_code == 401


def test_tls(start, tmp_path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    running = start(ssl_keyfile=str(key), ssl_certfile=str(certificate))
    context = ssl.create_default_context(cafile=str(certificate))
    assert httpx.get(running.url.replace("http:", "https:") + "/health", verify=context).status_code == 200


def test_a_wrong_key_is_named_plainly(module_server) -> None:
    answer = httpx.post(f"{module_server.url}/v1/chat/completions", json=json.loads(chat(logit_bias={"hello": 1})))
    assert answer.json()["error"]["param"] == "logit_bias.hello"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": 3}, "stop"),
        ({"stop": ["a", 3]}, "stop[1]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}, {"type": "x"}]}]}, "messages[0].content[1].type"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": [NAMED]}}},
            "tool_choice.allowed_tools.mode",
        ),
        ({"response_format": {"type": "json_object", "strict": 1}}, "response_format.strict"),
        ({"guided_json": 3}, "guided_json"),
        ({"max_tokens": None, "temperature": "hot"}, "temperature"),
    ],
)
def test_an_error_names_the_fields_own_path(module_server, fields: dict[str, Any], param: str) -> None:
    answer = httpx.post(f"{module_server.url}/v1/chat/completions", content=chat(**fields))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.json()
    assert "constrained" not in answer.json()["message"].partition(": ")[0]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; x=y"])
def test_json_is_read_under_any_content_type(module_server, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    url = f"{module_server.url}/v1/chat/completions"
    assert httpx.post(url, content=chat(), headers=headers).status_code == 200
    assert httpx.post(url, content=b"a=b", headers=headers).json()["error"]["code"] == "json_invalid"


def test_head_and_a_closing_slash(module_server) -> None:
    for path in ("/health", "/v1/models", "/v1/models/tiny", "/metrics", "/version", "/v1/models/", "/health/"):
        head, get = httpx.head(module_server.url + path), httpx.get(module_server.url + path)
        assert (head.status_code, head.content, get.status_code) == (200, b"", 200), path
    assert httpx.head(f"{module_server.url}/v1/chat/completions").status_code == 405
    assert httpx.post(f"{module_server.url}/v1/chat/completions/", content=chat()).status_code == 200


def test_browsers_are_let_in_only_where_the_flag_says_so(start, module_server) -> None:
    origin = {"Origin": "https://chat.example.org"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    url = f"{module_server.url}/v1/chat/completions"
    assert "access-control-allow-origin" not in httpx.post(url, content=chat(), headers=origin).headers
    running = start(allowed_origins=("https://chat.example.org",), api_key="k")
    url = f"{running.url}/v1/chat/completions"
    before = httpx.options(url, headers=asked)
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, origin["Origin"])
    refused = httpx.post(url, content=chat(), headers=origin)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin["Origin"])
    other = httpx.post(url, content=chat(), headers={"Origin": "https://evil.example.org", "Authorization": "Bearer k"})
    assert other.status_code == 200 and "access-control-allow-origin" not in other.headers


def test_an_encrypted_tls_key_without_a_terminal_is_an_error(tmp_path, monkeypatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -passout pass:secret -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    plan = ServePlan(model_name="tiny", ssl_keyfile=str(key), ssl_certfile=str(certificate))
    with server.bind("127.0.0.1", 0) as listener, pytest.raises(SwiftError, match="no terminal to ask") as refused:
        server.Server(Service(plan), listener, lambda loop: None, lambda: None)
    assert refused.value.where == "--ssl_keyfile"


def test_an_offer_to_change_the_protocol_is_passed_over_in_silence(running, capfd) -> None:
    for offer in ("websocket", "h2c"):
        headers = {"Connection": "Upgrade", "Upgrade": offer}
        assert httpx.get(f"{running.url}/health", headers=headers).status_code == 200
    assert capfd.readouterr().err == ""


def test_keys_of_messages_that_nobody_reads_are_named_once(running, caplog: pytest.LogCaptureFixture) -> None:
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "parsed": {"a": 1}}}
    messages = [
        {"role": "user", "content": [part], "mood": "bright"},
        {"role": "assistant", "content": "yes", "tool_calls": [call], "audio": {"id": "a"}, "annotations": []},
        {"role": "tool", "content": "1", "tool_call_id": "c"},
    ]
    for _ in range(2):
        assert httpx.post(f"{running.url}/v1/chat/completions", content=chat(messages=messages)).status_code == 200
    lines = [record.getMessage() for record in caplog.records if "not read" in record.getMessage()]
    for place in ("messages[].mood", "messages[].content[].cache_control", "messages[].audio", "function.parsed"):
        assert len([line for line in lines if place in line]) == 1
    assert "annotations" not in "".join(lines)
