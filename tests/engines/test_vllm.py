"""vLLM behind the Engine protocol, on the real SmolLM2: `make test-vllm` runs this where vLLM is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from behaviour import *  # noqa: F403  # the tests every engine runs
from behaviour import PROMPTS, Served

from swift.core.errors import NotBuilt, SwiftError
from swift.engines.base import JSON_OBJECT, Constraint, Engine, Request, SamplingParams
from swift.engines.sync_engine import SyncEngine
from swift.engines.vllm import VllmEngine, VllmSettings, engine_args, sampling_params, vllm_settings
from swift.engines.vllm_process import leash
from swift.params.groups import Vllm
from swift.prompts.types import Media

HERE = importlib.util.find_spec("vllm") is not None
WHY = "vLLM has an environment of its own: make test-vllm"
needs_vllm = pytest.mark.skipif(not HERE, reason=WHY)
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),  # vLLM leaves its sockets to the collector
]


@pytest.fixture(scope="module")
def model_dir(request: pytest.FixtureRequest) -> Path:
    """SmolLM2 as the main environment converted it, or converted here."""
    if not HERE:
        pytest.skip(WHY)
    given = os.environ.get("SWIFT_TEST_MODEL_DIR")
    return Path(given) if given else request.getfixturevalue("smollm2_dir")


@pytest.fixture(scope="module")
def reference(model_dir: Path) -> Any:
    """The same model in transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_dir, dtype="float32").eval()


@pytest.fixture(scope="module")
def adapters(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRAs with weights that change the answer."""
    import peft
    import torch

    folders = {}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(reference, config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.2)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folders[name])
        model.unload()
    return folders


@pytest.fixture(scope="module")
def served(model_dir: Path, reference: Any, adapters: dict[str, Path]) -> Iterator[Served]:
    """A running engine that serves the first LoRA, and PEFT to compare it with."""
    import peft
    import torch
    from transformers import AutoTokenizer

    settings = VllmSettings(dtype="fp32", max_model_len=512, max_num_seqs=16, enforce_eager=True, max_lora_rank=4)

    async def start() -> Engine:
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        return await VllmEngine.start(model_dir, tokenizer, settings, {"first": adapters["first"]})

    def greedy(ids: Sequence[int], tokens: int, adapter: str | None) -> list[int]:
        model = peft.PeftModel.from_pretrained(reference, adapters[adapter]) if adapter else reference
        prompt = torch.tensor([ids])
        with torch.inference_mode():
            made = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False, pad_token_id=2
            )
        if adapter:
            model.unload()
        return made[0, len(ids) :].tolist()

    with SyncEngine(start) as sync:
        yield Served(sync, greedy, "first", beams=False)


def test_penalties_keep_tokens_from_coming_back(served: Served) -> None:
    """As every engine's, with presence and frequency inside the -2 to 2 that vLLM takes, as OpenAI does."""
    plain = served.answer(PROMPTS[2], max_tokens=20)[1]
    tokens = served.answer(PROMPTS[2], max_tokens=20, repetition_penalty=50.0)[1]
    assert len(set(tokens)) == len(tokens)
    for penalty in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        assert served.answer(PROMPTS[2], max_tokens=20, **penalty)[1] != plain
    with pytest.raises(SwiftError, match="presence_penalty"):
        served.answer(PROMPTS[2], presence_penalty=3.0)


def test_ctrl_c_in_the_terminal_does_not_reach_the_model(served: Served) -> None:
    (process,) = [child for child in multiprocessing.active_children() if "EngineCore" in child.name]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert served.answer(PROMPTS[0], max_tokens=3)[2] == "length"


def test_the_place_is_taken_while_it_answers(served: Served) -> None:
    stream = served.sync.stream(served.request(PROMPTS[0], max_tokens=400, min_tokens=400))
    next(stream)
    assert served.sync.engine.statistics()["running"] == 1
    stream.close()


def test_logprobs_are_those_of_the_model(served: Served, reference: Any) -> None:
    import torch

    request = served.request(PROMPTS[0], max_tokens=4, logprobs=3)
    logprobs = [each for delta in served.sync.stream(request) for each in delta.logprobs]
    chosen = [each.token_id for each in logprobs]
    with torch.inference_mode():
        logits_TV = reference(torch.tensor([[*request.prompt_ids, *chosen]])).logits[0, -5:-1]
    expected_TV = logits_TV.log_softmax(-1)
    for step, each in enumerate(logprobs):
        assert each.logprob == pytest.approx(expected_TV[step, each.token_id].item(), abs=1e-3)
        assert [entry[1] for entry in each.top] == expected_TV[step].topk(3).indices.tolist()


def test_log_probs_of_a_text_that_is_in_the_cache(served: Served) -> None:
    """Longer than a block of the cache: what vLLM takes from there has no log-probabilities."""
    prompt = served.request(PROMPTS[0]).prompt_ids * 60
    assert len(prompt) > 256
    work = served.sync.engine.log_probs
    first, again = (_run(served, work(prompt, [(5, 6, 7)])) for _ in range(2))
    assert [one.logprob for one in first[0]] == pytest.approx([one.logprob for one in again[0]], abs=1e-3)
    assert sampling_params(SamplingParams(max_tokens=1), of_prompt=0).skip_reading_prefix_cache


def test_a_chosen_token_outside_the_top_is_not_added_to_it(served: Served) -> None:
    deltas = served.deltas(PROMPTS[0], temperature=2.0, seed=1, logprobs=1)
    logprobs = [each for delta in deltas for each in delta.logprobs]
    assert {len(each.top) for each in logprobs} == {1}
    assert any(each.top[0][1] != each.token_id for each in logprobs)


def test_an_adapter_is_added_while_it_runs(served: Served, adapters: dict[str, Path]) -> None:
    _run(served, served.sync.engine.add_adapter("second", str(adapters["second"])))
    assert served.sync.engine.adapters == ("first", "second")
    request = served.request(PROMPTS[0], adapter="second")
    (reply,) = served.sync.replies([request], 1)
    assert reply.token_ids == served.greedy(request.prompt_ids, 12, "second")


def test_a_bad_adapter_is_an_error_and_the_engine_lives(served: Served, tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="does not take the adapter `empty`"):
        _run(served, served.sync.engine.add_adapter("empty", str(tmp_path)))
    assert "empty" not in served.sync.engine.adapters
    assert served.answer(PROMPTS[0], max_tokens=2)[2] == "length"


def _run(served: Served, work: Any) -> Any:
    """What `work` gives, awaited in the engine's own loop."""
    return asyncio.run_coroutine_threadsafe(work, served.sync._loop).result(60)


@pytest.mark.parametrize(
    "wish", [{"grammar": Constraint("json", '{"type": "nonsense"}')}, {"logprobs": 1000}, {"top_p": 0.0}]
)
def test_what_vllm_refuses_is_an_error(served: Served, wish: dict[str, Any]) -> None:
    with pytest.raises(SwiftError, match="refuses the request"):
        served.answer(PROMPTS[0], **wish)


def test_media_are_refused(served: Served) -> None:
    sampling = SamplingParams(max_tokens=1)
    with pytest.raises(NotBuilt, match="images"):
        next(served.sync.stream(Request(id="m", prompt_ids=(1,), sampling=sampling, media=Media(images=("a.png",)))))


def test_a_process_on_the_leash_ends_with_this_one() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    shell = leash([sleeper.pid])
    assert shell.stdin is not None
    assert sleeper.poll() is None
    shell.stdin.close()  # as the system does when this process dies
    assert sleeper.wait(10) == -signal.SIGKILL
    assert shell.wait(10) == 0


@needs_vllm
def test_every_sampling_field_reaches_vllm() -> None:
    wish = SamplingParams(
        max_tokens=3,
        temperature=0.5,
        top_k=4,
        top_p=0.6,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias=((7, -1.5),),
        n=2,
        seed=9,
        min_tokens=1,
        stop=("a",),
        stop_token_ids=(5,),
        logprobs=2,
    )
    params = sampling_params(wish)
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p) == (3, 0.5, 4, 0.6)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.1, 0.2, 0.3)
    assert (params.n, params.seed, params.min_tokens, params.logprobs) == (2, 9, 1, 2)
    assert params.logit_bias == {7: -1.5}
    assert (params.stop, params.stop_token_ids) == (["a"], [5])
    assert (
        sampling_params(SamplingParams(max_tokens=1, grammar=JSON_OBJECT)).structured_outputs.json == JSON_OBJECT.text
    )


@needs_vllm
def test_a_model_vllm_refuses_is_an_error(model_dir: Path) -> None:
    settings = VllmSettings(max_model_len=10**6, enforce_eager=True)
    with pytest.raises(SwiftError, match="did not start") as caught:
        asyncio.run(VllmEngine.start(model_dir, None, settings))
    assert caught.value.why is not None
    assert "max_model_len" in caught.value.why


@needs_vllm
def test_the_rank_is_rounded_up_to_one_vllm_has(tmp_path: Path) -> None:
    settings = VllmSettings(enable_lora=True, max_lora_rank=10, adapts_all=True)
    assert engine_args(tmp_path, settings, {})["max_lora_rank"] == 16
    assert engine_args(tmp_path, settings, {})["enable_tower_connector_lora"]
    with pytest.raises(SwiftError, match="ranks up to"):
        engine_args(tmp_path, VllmSettings(enable_lora=True, max_lora_rank=4096), {})


def test_flags_become_settings() -> None:
    flags = Vllm(
        gpu_memory_utilization=0.5,
        tensor_parallel_size=2,
        max_num_seqs=7,
        max_model_len=99,
        disable_custom_all_reduce=False,
        enforce_eager=True,
        limit_mm_per_prompt='{"image": 2}',
        vllm_enable_lora=True,
        vllm_max_lora_rank=32,
    )
    settings = vllm_settings(flags, dtype="bf16", seed=3)
    args = engine_args(Path("model"), settings, {}) if HERE else None
    assert settings.max_lora_rank == 32
    assert settings.enable_lora
    assert settings.limit_mm_per_prompt == {"image": 2}
    assert (
        args is None
        or {
            "gpu_memory_utilization": 0.5,
            "tensor_parallel_size": 2,
            "max_num_seqs": 7,
            "max_model_len": 99,
            "disable_custom_all_reduce": False,
            "enforce_eager": True,
            "limit_mm_per_prompt": {"image": 2},
            "dtype": "bfloat16",
            "seed": 3,
        }.items()
        <= args.items()
    )


def test_the_share_of_memory_is_left_to_vllm_unless_said() -> None:
    assert vllm_settings(Vllm(), memory_given=False).gpu_memory_utilization is None
    assert "gpu_memory_utilization" not in engine_args(Path("model"), VllmSettings(), {})


@pytest.mark.parametrize("said", ["{", "[1]", '{"image": "two"}', '{"image": -1}'])
def test_a_bad_media_limit_names_its_flag(said: str) -> None:
    with pytest.raises(SwiftError) as caught:
        vllm_settings(Vllm(limit_mm_per_prompt=said))
    assert caught.value.where == "--limit_mm_per_prompt"


@pytest.mark.skipif(HERE, reason="vLLM is installed here")
def test_without_vllm_the_way_to_get_it_is_said() -> None:
    with pytest.raises(SwiftError, match="needs the package `vllm`") as caught:
        asyncio.run(VllmEngine.start(Path("model"), None, VllmSettings()))
    assert caught.value.next is not None
    assert "pip install" in caught.value.next
