"""Every kind of adapter that PEFT has: alone, beside the base and another, merged, and as PEFT itself answers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import peft
import pytest
import torch
from tests.tuners.conftest import SMALL
from tests.tuners.peft_kinds import KINDS, REFUSED, write_adapter
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from swift import tuners
from swift.core.errors import SwiftError
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.kv_attention import NAME as SLOTS
from swift.engines.kv_attention import Survey
from swift.engines.packed_linear import PackedLinear, pack
from swift.params.parse import parse
from swift.plan.tuner import TunerPlan
from swift.plan.tuner_settings import SETTINGS

IDS = torch.randint(300, (3, 17), generator=torch.Generator().manual_seed(1))
IDS[:, 3:6] = torch.tensor([3, 7, 11])  # the tokens that some kinds train
CLOSE = {"atol": 1e-4, "rtol": 0}


def random_model(kind: str) -> PreTrainedModel:
    """Two layers: tied without biases, or untied with biases in attention."""
    torch.manual_seed(0)
    if kind == "tied":
        model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(scope="module", params=["tied", "untied"])
def base(request: pytest.FixtureRequest) -> PreTrainedModel:
    return random_model(request.param)


@pytest.fixture(scope="module")
def plain_lora(base: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_adapter(copy.deepcopy(base), folder, "lora_ranks", seed=7)
    return folder


@pytest.fixture(scope="module")
def pool(base: PreTrainedModel, plain_lora: Path) -> AdaptedModel:
    """The base, packed as an engine on a CPU has it, and a plain LoRA under a name that PEFT uses itself."""
    packed = copy.deepcopy(base)
    pack(packed)
    pool = AdaptedModel(packed)
    pool.add("lora", plain_lora)
    return pool


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    return model.eval()(input_ids=IDS).logits


@torch.inference_mode()
def answers(pool: AdaptedModel, names: list[str | None]) -> Tensor:
    """The logits of row i with the adapter `names[i]`, in as few passes as may be."""
    rows: dict[int, Tensor] = {}
    for group in pool.groups(names):
        output = pool.forward([names[at] for at in group], input_ids=IDS[group]).logits
        rows.update(zip(group, output, strict=True))
    return torch.stack([rows[at] for at in range(len(names))])


@torch.inference_mode()
def over_slots(pool: AdaptedModel, name: str) -> Tensor:
    """The logits of a step, through a plain forward pass where there is one."""
    positions = torch.arange(IDS.shape[1]).expand(len(IDS), -1)
    survey = Survey()
    pool.base.set_attn_implementation(SLOTS)
    pool.step([None] * len(IDS), survey, IDS, positions)
    pool.hows = survey.hows
    logits = pool.step([name] * len(IDS), Survey(), IDS, positions)
    pool.hows = None
    pool.close()
    return logits


def by_peft(base: PreTrainedModel, folder: Path) -> peft.PeftModel:
    with warnings.catch_warnings(action="ignore"):
        return peft.PeftModel.from_pretrained(copy.deepcopy(base), str(folder))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED])
def test_alone_beside_others_merged_and_as_peft(
    kind: str, base: PreTrainedModel, pool: AdaptedModel, plain_lora: Path, tmp_path: Path
) -> None:
    try:
        made = logits(write_adapter(copy.deepcopy(base), tmp_path, kind))
    except ValueError:
        pytest.skip("PEFT does not make it for this model")
    expected = logits(by_peft(base, tmp_path))
    torch.testing.assert_close(expected, made, **CLOSE)
    untouched, other = logits(base), logits(by_peft(base, plain_lora))
    assert (expected - untouched).abs().max() > 1e-3

    pool.add("it", tmp_path)
    try:
        torch.testing.assert_close(answers(pool, ["it", "it", "it"]), expected, **CLOSE)
        torch.testing.assert_close(over_slots(pool, "it"), expected, **CLOSE)
        mixed = answers(pool, [None, "it", "lora"])
        torch.testing.assert_close(mixed[1], expected[1], **CLOSE)
    finally:
        pool.remove("it")
    torch.testing.assert_close(mixed[0], untouched[0], **CLOSE)
    torch.testing.assert_close(mixed[2], other[2], **CLOSE)
    torch.testing.assert_close(answers(pool, [None, "lora", None]), torch.stack([untouched[0], other[1], untouched[2]]))

    tuned = tuners.load(copy.deepcopy(base), tmp_path)
    torch.testing.assert_close(logits(tuned), expected, **CLOSE)
    if kind in ("lora_own_bias", "beft") and isinstance(base, LlamaForCausalLM):  # its layers have no biases
        with pytest.raises(SwiftError, match="cannot be merged") as error:
            tuners.merge(tuned)
        assert error.value.why and not error.value.why.endswith(":")
        return
    merged = tuners.merge(tuned)
    torch.testing.assert_close(logits(merged), expected, **CLOSE)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected, **CLOSE)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_refused_when_it_is_loaded(kind: str, tmp_path: Path) -> None:
    base = random_model("tied")
    write_adapter(copy.deepcopy(base), tmp_path, kind)
    pool = AdaptedModel(base)
    for load in (lambda: pool.add("it", tmp_path), lambda: tuners.load(copy.deepcopy(base), tmp_path)):
        with pytest.raises(SwiftError, match="neither merged nor answered with") as error:
            load()
        assert REFUSED[kind] in str(error.value.why)
    assert pool.names == ()
    assert logits(base).isfinite().all()


def write_resized(base: PreTrainedModel, folder: Path, tokens: int, **settings: object) -> peft.PeftModel:
    """A LoRA trained after `resize_token_embeddings`, by plain PEFT."""
    torch.manual_seed(3)
    base.resize_token_embeddings(tokens, mean_resizing=False)
    with warnings.catch_warnings(action="ignore"):
        tuned = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"], **settings))  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        tuned.save_pretrained(str(folder), save_embedding_layers=True)
    return tuned.eval()  # type: ignore[return-value]


@pytest.mark.parametrize("tokens", [310, 290])
@pytest.mark.parametrize("settings", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=["beside", "trained"])
def test_another_vocabulary(
    tokens: int, settings: dict[str, object], base: PreTrainedModel, pool: AdaptedModel, tmp_path: Path
) -> None:
    ids = IDS % tokens
    tuned = write_resized(copy.deepcopy(base), tmp_path, tokens, **settings)
    with torch.inference_mode():
        expected = tuned(input_ids=ids).logits
    fresh = AdaptedModel(pool.base)
    fresh.add("it", tmp_path)
    assert fresh.tokens("it") == tokens and fresh.tokens(None) == 300
    with torch.inference_mode():
        got = fresh.forward(["it"], input_ids=ids).logits
        assert got.shape[-1] == max(tokens, 300) == fresh.forward([None], input_ids=IDS).logits.shape[-1]
    torch.testing.assert_close(got[..., :tokens], expected, **CLOSE)
    assert pool.base.config.vocab_size == 300
    merged = tuners.merge(tuners.load(copy.deepcopy(base), tmp_path))
    with torch.inference_mode():
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, **CLOSE)


def test_a_larger_vocabulary_does_not_come_in_the_middle(base: PreTrainedModel, tmp_path: Path) -> None:
    write_resized(copy.deepcopy(base), tmp_path, 310)
    late = AdaptedModel(copy.deepcopy(base))
    late.forward([None], input_ids=IDS)
    with pytest.raises(SwiftError, match="310"):
        late.add("it", tmp_path)
    assert late.names == ()


@pytest.mark.parametrize("name", ["a", "lora", "r", "v1.0", "keys", "gpt2_wte", "default", "model.layers", "__base__"])
def test_names_of_users_are_only_names(name: str, base: PreTrainedModel, plain_lora: Path, tmp_path: Path) -> None:
    write_adapter(copy.deepcopy(base), tmp_path, "saved_head")
    pool = AdaptedModel(copy.deepcopy(base))
    pool.add(name, plain_lora)
    pool.add("other", plain_lora)
    expected = logits(by_peft(base, plain_lora))
    mixed = answers(pool, [name, None, "other"])
    torch.testing.assert_close(mixed[0], expected[0], **CLOSE)
    torch.testing.assert_close(mixed[1], logits(base)[1], **CLOSE)
    pool.add(name, tmp_path)
    torch.testing.assert_close(answers(pool, [name] * 3), logits(by_peft(base, tmp_path)), **CLOSE)


def test_a_token_that_the_base_lacks(base: PreTrainedModel, tmp_path: Path) -> None:
    write_adapter(copy.deepcopy(base), tmp_path, "tokens_beside_lora")
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text().replace("11", "305"))
    with pytest.raises(SwiftError, match="does not fit") as error:
        AdaptedModel(base).add("it", tmp_path)
    assert "token 305" in str(error.value.why)


def test_packed_layers_are_held_once(base: PreTrainedModel, plain_lora: Path, tmp_path: Path) -> None:
    """A LoRA calls the base's own packed layers; whatever computes with weights has plain ones of its own."""
    packed = copy.deepcopy(base)
    pack(packed)
    pool = AdaptedModel(packed)
    own = {id(layer) for layer in packed.modules() if isinstance(layer, PackedLinear)}
    for kind, plain in (("lora", 0), ("saved_head", 0), ("saved_norms", 0), ("dora", 4)):
        write_adapter(copy.deepcopy(base), tmp_path / kind, kind)
        pool.add(kind, tmp_path / kind)
        layers = list(pool._with(kind).named_modules())
        others = {id(layer) for _, layer in layers if isinstance(layer, PackedLinear)} - own
        bare = [path for path, layer in layers if type(layer) is nn.Linear and "lora_" not in path]
        assert len(others) == 0, kind
        assert len(bare) == plain + (kind == "saved_head"), (kind, bare)
    assert {id(layer) for layer in packed.modules() if isinstance(layer, PackedLinear)} == own


@pytest.mark.parametrize(
    "flags", ["--sft_type adapter --adapter_length 8", "--sft_type reft", "--init_lora_weights loftq"]
)
def test_methods_of_our_own_answer_beside_the_base_and_a_lora(
    flags: str, base: PreTrainedModel, pool: AdaptedModel, tmp_path: Path
) -> None:
    args = parse(["sft", "--model_id_or_path", str(tmp_path), *flags.split()])
    sft_type = args.values["sft_type"]
    plan = TunerPlan(sft_type=sft_type, target_modules=("q_proj", "v_proj"), settings=SETTINGS[sft_type](args))
    torch.manual_seed(3)
    tuned = tuners.attach(copy.deepcopy(base), plan)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    tuners.save(tuned, tmp_path)
    before = answers(pool, [None, "lora", None])
    pool.add("own", tmp_path)
    together = answers(pool, ["own", "lora", None])
    assert (together[0] - before[0]).abs().max() > 1e-2
    torch.testing.assert_close(together[0], logits(tuned)[0], **CLOSE)
    torch.testing.assert_close(together[1:], before[1:], atol=1e-6, rtol=0)
    pool.remove("own")
    torch.testing.assert_close(answers(pool, [None, "lora", None]), before, atol=1e-6, rtol=0)
