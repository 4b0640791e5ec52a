"""Each adapter of a server is asked with the prompt that it was trained with, or the server does not start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift.catalog import load_catalog
from swift.cli import main
from swift.core.machine import Machine
from swift.engines.factory import Prepared, prepare, start
from swift.engines.sync_engine import SyncEngine
from swift.params.parse import parse
from swift.plan.infer import InferPlan, plan_infer
from swift.plan.prompt import PromptPlan
from swift.plan.serve import ServePlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.parity import write_certificate
from swift.serving.schema import ChatRequest
from swift.serving.service import Loaded, Service

# peft asks transformers under an older name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def adapters(tiny_llama_dir: Path, tmp_path: Path) -> dict[str, Path]:
    """LoRAs that were trained with a system text, with another, with none said, and with another template."""
    trained = {
        "pirate": ("chatml", "You are a pirate."),
        "poet": ("chatml", "You are a poet."),
        "plain": ("chatml", None),
    }
    folders = {}
    tokenizer, catalog = AutoTokenizer.from_pretrained(tiny_llama_dir), load_catalog()
    for name, (template, system) in {**trained, "foreign": ("llama3", None)}.items():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
        folders[name] = tmp_path / name
        get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(folders[name])
        (folders[name] / "sft_args.json").write_text(json.dumps({"template_type": template, "system": system}))
        encoder = build_encoder(PromptPlan(template_type=template, system=system), tokenizer, catalog)
        write_certificate(encoder, folders[name])
    return folders


def words(model: Path, adapters: dict[str, Path], *names: str) -> list[str]:
    """The flags of a server with these adapters."""
    modules = [f"{name}={adapters[name]}" for name in names]
    flags = ["--model_id_or_path", str(model), "--template_type", "chatml", "--infer_backend", "pt", "--dtype", "fp32"]
    return [*flags, "--lora_modules", *modules]


def made_ready(*words: str) -> tuple[InferPlan, Prepared]:
    catalog = load_catalog()
    plan = plan_infer(parse(["deploy", *words]), catalog, Machine(), answers_rows=False)
    return plan, prepare(plan, catalog)


def asked(plan: InferPlan, prepared: Prepared, *names: str, **fields: str) -> dict[str, str]:
    """The prompt that the server makes of a question to each model."""
    system = [{"role": "system", "content": fields["system"]}] if "system" in fields else []
    with SyncEngine(lambda: start(plan, prepared)) as engine:
        service = Service(ServePlan(model_name="base"))
        defaults = ServePlan(model_name="base").defaults(prepared.sampling)
        service.open(Loaded(engine.engine, prepared.encoder, defaults, encoders=prepared.encoders))

        async def text(_: object, name: str) -> str:
            messages = [*system, {"role": "user", "content": "Who are you?"}]
            ready = await service.prepare(ChatRequest.model_validate({"model": name, "messages": messages}))
            return prepared.tokenizer.decode(ready.prompts[0])

        return dict(zip(names, engine.map(text, names, 1), strict=True))


def rendered(encoder: Encoder, system: str | None) -> str:
    """ChatML of one question, in words."""
    before = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    assert encoder.template_type == "chatml"
    return f"{before}<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"


def test_each_is_asked_with_its_own_system_text(tiny_llama_dir: Path, adapters: dict[str, Path]) -> None:
    plan, prepared = made_ready(*words(tiny_llama_dir, adapters, "pirate", "poet", "plain"))
    own = prepared.encoder.template.default_system
    prompts = asked(plan, prepared, "base", "pirate", "poet", "plain")
    for name, system in {"pirate": "You are a pirate.", "poet": "You are a poet.", "base": own, "plain": own}.items():
        assert prompts[name] == rendered(prepared.encoder, system), name
    said = asked(plan, prepared, "base", "pirate", system="Be brief.")
    assert set(said.values()) == {rendered(prepared.encoder, "Be brief.")}


def test_the_command_line_decides_for_all(tiny_llama_dir: Path, adapters: dict[str, Path]) -> None:
    _, prepared = made_ready(*words(tiny_llama_dir, adapters, "pirate", "plain"), "--system", "Be brief.")
    assert not prepared.encoders and prepared.encoder.template.default_system == "Be brief."


def test_another_template_is_refused(
    tiny_llama_dir: Path, adapters: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", *words(tiny_llama_dir, adapters, "pirate", "foreign"), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert "the prompts differ" in said and str(adapters["foreign"]) in said
