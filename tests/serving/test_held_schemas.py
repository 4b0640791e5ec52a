"""200 answers over HTTP that are held to schemas, each read by a validator that was not written here."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from pydantic import AnyUrl, BaseModel, Field, FilePath
from pydantic.types import UUID4, AwareDatetime, date

from swift.catalog import load_catalog
from swift.core.probe import probe
from swift.engines.factory import prepare, start
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.plan.serve import Defaults, ServePlan
from swift.serving.server import Server, bind
from swift.serving.service import Loaded, Service

jsonschema = pytest.importorskip("jsonschema", reason="the validator that was not written here")
pytestmark = pytest.mark.slow
ANSWERS = 200


class Colour(StrEnum):
    """A choice."""

    RED = "red"
    GREEN = "green"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    weight: float


class Owner(BaseModel):
    name: str = Field(max_length=12)
    code: str = Field(pattern=r"^[A-Z]{2}-\d{3}$")
    born: date
    seen: AwareDatetime | None
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(max_length=2)
    colours: tuple[Colour, int]
    scores: dict[str, int] = Field(max_length=2)


class Tree(BaseModel):
    value: int
    left: Tree | None
    right: Tree | None


class Strings(BaseModel):
    path: FilePath
    url: AnyUrl
    uuid: UUID4


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS: list[dict[str, Any]] = [
    *(model.model_json_schema() for model in (Owner, Tree, Strings, Cat)),
    _object(a={"type": "integer", "minimum": -5, "exclusiveMaximum": 7}, b={"type": "number", "multipleOf": 0.25}),
    _object(a={"type": ["string", "null"], "maxLength": 4}, b={"enum": [1, "one", None, {"x": [1]}]}),
    {"type": "array", "prefixItems": [{"const": "x"}], "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"anyOf": [_object(a={"$ref": "#/$defs/n"}), {"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "integer"}}},
    {"allOf": [_object(a={"type": "string"}), {"properties": {"a": {"pattern": "^a.c", "maxLength": 6}}}]},
    {"oneOf": [_object(kind={"const": "a"}, x={"type": "null"}), _object(kind={"const": "b"})]},
    {"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": {"const": 1}},
    _object(d={"format": "date", "type": "string"}, t={"format": "time", "type": "string"}),
]


@pytest.fixture(scope="module")
def url(tiny_qwen2_dir: Path) -> Iterator[str]:
    """A server over a random model: nothing but the grammar makes its answers hold."""
    args = parse(["deploy", "--model_id_or_path", str(tiny_qwen2_dir), "--template_type", "qwen"])
    catalog = load_catalog()
    infer = plan_infer(args, catalog, probe(), answers_rows=False)
    ready = threading.Event()

    def load(loop: asyncio.AbstractEventLoop) -> Loaded:
        prepared = prepare(infer, catalog)
        return Loaded(asyncio.run(start(infer, prepared)), prepared.encoder, Defaults())

    with bind("127.0.0.1", 0) as listener:
        server = Server(Service(ServePlan(model_name="tiny")), listener, load, ready.set)
        thread = threading.Thread(target=server.answer)
        thread.start()
        assert ready.wait(120)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
        server.stop()
        thread.join(60)


@pytest.fixture(scope="module")
def closing(smollm2_tokenizer_dir: Path) -> dict[str, float]:
    """A push towards the tokens that end strings, lists and objects, or a random model hardly ever ends any."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)
    texts = {number: tokenizer.decode([number]).strip() for number in range(len(tokenizer))}
    tokens = [str(number) for number, text in texts.items() if text and set(text) <= set('"}],:')]
    return {tokenizer.eos_token_id: 100.0} | dict.fromkeys(tokens[:1000], 25.0)


FORMS = ("response_format", "guided_json", "named", "required", "auto")


def ask(url: str, schema: dict[str, Any], form: str, seed: int, closing: dict[str, float]) -> dict[str, Any]:
    """The one choice of an answer held to `schema` by the fields of `form`."""
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Go on"}],
        "max_tokens": 160,
        "seed": seed,
        "temperature": 1.0,
        "logit_bias": closing,
    }
    held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    fields: dict[str, dict[str, Any]] = {
        "response_format": {"response_format": held},
        "guided_json": {"guided_json": schema},
        "named": {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        "required": {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False},
        "auto": {"tools": [tool], "response_format": held},
    }
    answer = httpx.post(url, json={**body, **fields[form]}, timeout=600)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def test_every_whole_answer_is_valid(url: str, closing: dict[str, float]) -> None:
    draft = jsonschema.Draft202012Validator
    validators = [draft(each, format_checker=draft.FORMAT_CHECKER) for each in SCHEMAS]
    valid: Counter[str] = Counter()

    def answer(seed: int) -> None:
        place = seed % len(SCHEMAS)
        schema = SCHEMAS[place]
        forms = FORMS if schema.get("type") == "object" else FORMS[:2]
        form = forms[seed // len(SCHEMAS) % len(forms)]
        choice = ask(url, schema, form, seed, closing)
        if choice["finish_reason"] != "length":
            called = choice["message"]["tool_calls"]
            text = called[0]["function"]["arguments"] if called else choice["message"]["content"]
            validators[place].validate(json.loads(text))
            valid[form] += 1

    with ThreadPoolExecutor(16) as pool:
        for start_at in range(0, 3 * ANSWERS, 48):
            list(pool.map(answer, range(start_at, start_at + 48)))
            if valid.total() >= ANSWERS:
                break
    assert valid.total() >= ANSWERS and set(valid) == set(FORMS), valid
