"""`swift rlhf` from the command line to its log and files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig

from swift.cli import main
from swift.plan.methods import METHODS

WORDS = [f"word{number}" for number in range(18)]


def text(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rng, path = random.Random(0), tmp_path / "pairs.jsonl"
    rows = [
        {"query": text(rng, 8, 20), "response": text(rng, 2, 8), "rejected_response": text(rng, 2, 8)}
        for _ in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rng, path = random.Random(0), tmp_path / "labelled.jsonl"
    labels = [True, False, 1, 0, "true", "false"] * 2
    rows = [{"query": text(rng, 8, 20), "response": text(rng, 2, 8), "label": label} for label in labels]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(output: Path, **values: Any) -> list[str]:
    given = {
        "output_dir": output,
        "add_output_dir_suffix": "false",
        "dataset_test_ratio": 0,
        "max_steps": 2,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "warmup_ratio": 0,
        "logging_steps": 1,
        "report_to": "none",
        "no_cache": "true",
        "max_new_tokens": 8,
        **values,
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def logged(output: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    return [event for event in events if "grad_norm" in event]


def test_dpo_logs_what_2_5_logs_and_starts_at_its_closed_form(
    tiny_llama_dir: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["dpo", *words(run, model_id_or_path=tiny_llama_dir, dataset=pairs, dataset_test_ratio=0.2)]) == 0
    first, second = logged(run)
    names = {f"{kind}/{end}" for kind in ("rewards", "logps", "logits") for end in ("chosen", "rejected")}
    assert names | {"rewards/accuracies", "rewards/margins", "nll_loss"} <= set(first)
    assert first["rewards/chosen"] == first["rewards/margins"] == 0
    assert first["loss"] == pytest.approx(0.693147 + first["nll_loss"], abs=1e-5)
    assert second["rewards/chosen"] != 0
    events = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    assert any({"eval_loss", "eval_rewards/accuracies", "eval_nll_loss"} <= set(event) for event in events)
    err = capsys.readouterr().err
    assert "loss      sigmoid, beta 0.1, + 1.0 x nll of the chosen answer; dropout off" in err
    assert "reference the model with its adapter switched off" in err
    assert "chosen: " in err and "rejected: " in err


def test_accumulation_and_shared_prompts_change_nothing(tiny_llama_dir: Path, pairs: Path, tmp_path: Path) -> None:
    runs = []
    for number, (batch, accumulation, share) in enumerate(((4, 1, "true"), (1, 4, "true"), (2, 2, "false"))):
        run = tmp_path / str(number)
        options = {"batch_size": batch, "gradient_accumulation_steps": accumulation, "share_prompts": share}
        given = words(run, model_id_or_path=tiny_llama_dir, dataset=pairs, loss_type="bco_pair", **options)
        assert main(["rlhf", *given]) == 0
        runs.append(torch.tensor([[event["loss"], event["grad_norm"]] for event in logged(run)]))
    torch.testing.assert_close(runs[1], runs[0], rtol=2e-4, atol=1e-5)
    torch.testing.assert_close(runs[2], runs[0], rtol=2e-4, atol=1e-5)


def test_a_dry_run_counts_the_reference_and_says_when_it_is_in_memory(
    tiny_llama_dir: Path, tiny_qwen2_dir: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(tmp_path / "run", model_id_or_path=tiny_llama_dir, dataset=pairs, dry_run="true")
    peaks = []
    for more in (
        [],
        ["--ref_model_id_or_path", str(tiny_qwen2_dir), "--precompute_ref_log_probs", "false"],
        ["--sft_type", "full"],
    ):
        assert main(["dpo", *given, *more]) == 0
        peaks.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory")))
    assert "reference" not in peaks[0]
    assert "reference 0.02 GiB (in memory while training)" in peaks[1]
    assert "reference 0.01 GiB (asked before training and then out of memory)" in peaks[2]


@pytest.mark.slow
def test_dropout_is_off_unless_a_reward_model_is_asked_to_have_some(
    pairs: Path, smollm2_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = OPTConfig(
        **{"vocab_size": 49152, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"word_embed_proj_dim": 32, "dropout": 0.5, "attention_dropout": 0.5, "pad_token_id": 2},
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "opt")
    AutoTokenizer.from_pretrained(smollm2_tokenizer_dir).save_pretrained(tmp_path / "opt")

    def first(name: str, kind: str, **flags: Any) -> tuple[float, str]:
        given = words(tmp_path / name, model_id_or_path=tmp_path / "opt", dataset=pairs, max_steps=1, seed=5, **flags)
        assert main(["rlhf", "--rlhf_type", kind, *given, "--template_type", "smollm2"]) == 0
        return logged(tmp_path / name)[0]["loss"], capsys.readouterr().err

    loss, err = first("dpo", "dpo", rpo_alpha=0, lora_dropout=0.5)
    assert loss == pytest.approx(0.693147, abs=1e-5)
    assert "dropout off (--lora_dropout has no effect)" in err
    plain, _ = first("rm", "rm", learning_rate=0, eval_steps=1, val_dataset=pairs, gradient_accumulation_steps=6)
    events = [json.loads(line) for line in (tmp_path / "rm" / "logging.jsonl").read_text().splitlines()]
    assert plain == pytest.approx(next(event["eval_loss"] for event in events if "eval_loss" in event), abs=1e-5)
    asked, err = first("asked", "rm", learning_rate=0, lora_dropout=0.5, gradient_accumulation_steps=6)
    assert asked != plain and "dropout off" not in err


@pytest.mark.parametrize(
    "kind", ["orpo", "rm", pytest.param("simpo", marks=pytest.mark.slow), pytest.param("cpo", marks=pytest.mark.slow)]
)
def test_every_kind_of_pairs_trains(
    kind: str, tiny_llama_dir: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    given = words(run, rlhf_type=kind, model_id_or_path=tiny_llama_dir, dataset=pairs, max_steps=1)
    assert main(["rlhf", *given]) == 0
    (first,) = logged(run)
    assert f"swift {'deploy' if kind == 'rm' else 'infer'} --ckpt_dir" in capsys.readouterr().err
    if kind == "rm":
        head = load_file(run / "checkpoint-1" / "value_head.safetensors")
        assert {name: tuple(tensor.shape) for name, tensor in head.items()} == {
            "v_head.summary.weight": (1, 64),
            "v_head.summary.bias": (1,),
        }
        assert 0 <= first["accuracy"] <= 1
        assert main(["merge-lora", "--ckpt_dir", str(run / "checkpoint-1")]) == 0
        merged = load_file(run / "checkpoint-1-merged" / "value_head.safetensors")
        assert all(torch.equal(head[name], merged[name]) for name in head)
    else:
        assert first["nll_loss"] > 0
    if kind == "orpo":
        assert first["log_odds_ratio"] < 0


@pytest.mark.parametrize(
    "kind", ["kto", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dpo", "orpo", "rm"))]
)
def test_the_best_checkpoint_is_the_one_with_the_best_metric(
    kind: str, tiny_llama_dir: Path, pairs: Path, labelled: Path, tmp_path: Path
) -> None:
    ranking = METHODS[kind].ranking
    rows = {"dataset": labelled if kind == "kto" else pairs, "dataset_test_ratio": 0.5}
    every = {"eval_steps": 1, "save_steps": 1, "save_total_limit": -1, "max_steps": 3, "learning_rate": 1}
    given = words(tmp_path / "run", rlhf_type=kind, model_id_or_path=tiny_llama_dir, **rows, **every)
    assert main(["rlhf", *given, "--metric_for_best_model", ranking[0]]) == 0
    events = [json.loads(line) for line in (tmp_path / "run" / "logging.jsonl").read_text().splitlines()]
    evaluations = [event for event in events if "eval_loss" in event]
    assert all(f"eval_{name}" in evaluations[-1] for name in ranking)
    values = [event[f"eval_{ranking[0]}"] for event in evaluations]
    best = values.index(max(values)) + 1
    assert events[-1]["best_model_checkpoint"] == str(tmp_path / "run" / f"checkpoint-{best}")


@pytest.mark.slow
def test_a_reward_model_by_full_tuning_keeps_its_head_out_of_the_weights(
    tiny_llama_dir: Path, pairs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = words(run, model_id_or_path=tiny_llama_dir, dataset=pairs, max_steps=1, sft_type="full")
    assert main(["rlhf", "--rlhf_type", "rm", *given]) == 0
    checkpoint = run / "checkpoint-1"
    assert not [name for name in load_file(checkpoint / "model.safetensors") if "v_head" in name]
    again = tmp_path / "again"
    given = words(again, model_id_or_path=checkpoint, dataset=pairs, max_steps=1, learning_rate=0)
    assert main(["rlhf", "--rlhf_type", "rm", *given]) == 0
    before = load_file(checkpoint / "value_head.safetensors")
    after = load_file(again / "checkpoint-1" / "value_head.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_kto_takes_the_rows_own_labels_and_needs_no_validation(
    tiny_llama_dir: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    given = words(run, model_id_or_path=tiny_llama_dir, dataset=labelled, batch_size=6, gradient_accumulation_steps=2)
    assert main(["kto", *given]) == 0
    first, second = logged(run)
    assert (first["loss"], first["kl"], first["kl_rows"]) == (0.5, 0, 6)
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logits/rejected"} <= set(second)
    assert abs(second["logits/chosen"]) < 1
    assert "6 desirable and 6 undesirable rows" in capsys.readouterr().err
    lazy = words(tmp_path / "lazy", model_id_or_path=tiny_llama_dir, dataset=labelled, lazy_tokenize="true")
    assert main(["kto", *lazy, "--loss_type", "apo_zero_unpaired", "--desirable_weight", "3"]) == 0
    assert "--desirable_weight 1.00 to 1.33, or --undesirable_weight 2.25 to 3.00" in capsys.readouterr().err


@pytest.mark.slow
def test_kto_goes_on_with_the_micro_batch_of_its_checkpoint(
    tiny_llama_dir: Path, labelled: Path, tmp_path: Path
) -> None:
    def trained(run: Path, *more: str, **values: Any) -> None:
        given = words(run, model_id_or_path=tiny_llama_dir, dataset=labelled, gradient_accumulation_steps=1, **values)
        at = given.index("--batch_size")
        assert main(["kto", *given[:at], *given[at + 2 :], *more]) == 0

    for name, first in (("default", ()), ("given", ("--batch_size", "3"))):
        trained(tmp_path / name, *first)
        trained(tmp_path / name, max_steps=4, resume_from_checkpoint="auto")
    assert [event["kl_rows"] for event in logged(tmp_path / "default")] == [4] * 4
    assert [event["kl_rows"] for event in logged(tmp_path / "given")] == [3] * 4


@pytest.mark.slow
def test_a_named_reference_counts_without_its_type(tiny_llama_dir: Path, pairs: Path, tmp_path: Path) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    first = words(base, model_id_or_path=tiny_llama_dir, dataset=pairs, sft_type="full", learning_rate=1e-3)
    assert main(["rlhf", *first]) == 0
    other = base / "checkpoint-2"
    given = words(run, model_id_or_path=tiny_llama_dir, dataset=pairs, ref_model_id_or_path=other)
    assert main(["rlhf", *given]) == 0
    assert abs(logged(run)[0]["rewards/chosen"]) > 1e-4
    assert json.loads((run / "sft_args.json").read_text())["ref_model_id_or_path"] == str(other)


def test_an_adapter_to_start_from_is_the_reference_also_after_an_interruption(
    tiny_llama_dir: Path, pairs: Path, tmp_path: Path
) -> None:
    model = {"model_id_or_path": tiny_llama_dir, "dataset": pairs}
    assert main(["sft", *words(tmp_path / "sft", **model)]) == 0
    start = {"resume_from_checkpoint": tmp_path / "sft" / "checkpoint-2", "resume_only_model": "true", **model}
    whole = tmp_path / "whole"
    assert main(["rlhf", *words(whole, max_steps=4, save_steps=2, save_total_limit=-1, **start)]) == 0
    assert logged(whole)[0]["rewards/chosen"] == 0
    assert (whole / "checkpoint-2" / "reference.safetensors").is_file()
    more = {"resume_from_checkpoint": whole / "checkpoint-2", **model}
    again = tmp_path / "again"
    assert main(["rlhf", *words(again, max_steps=4, save_steps=2, save_total_limit=-1, **more)]) == 0
    for name in ("loss", "grad_norm", "rewards/chosen"):
        assert [event[name] for event in logged(again)] == [event[name] for event in logged(whole)][2:]
    weights = [load_file(run / "checkpoint-4" / "adapter_model.safetensors") for run in (whole, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resumed_equals_uninterrupted(tiny_llama_dir: Path, pairs: Path, tmp_path: Path) -> None:
    options = {"model_id_or_path": tiny_llama_dir, "dataset": pairs, "loss_type": "bco_pair", "max_steps": 4}
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert main(["dpo", *words(whole, save_steps=2, save_total_limit=-1, **options)]) == 0
    assert main(["dpo", *words(again, resume_from_checkpoint=whole / "checkpoint-2", **options)]) == 0
    assert [event["loss"] for event in logged(again)] == [event["loss"] for event in logged(whole)][2:]


def test_a_reference_asked_before_training_changes_nothing(
    tiny_llama_dir: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"dataset_test_ratio": 0.2, "sft_type": "full", "learning_rate": 1e-3, "no_cache": "false"}
    options = {"model_id_or_path": tiny_llama_dir, "dataset": pairs, "cache_dir": tmp_path / "cache", **more}
    runs = []
    for name, precompute in (("live", "false"), ("first", "AUTO"), ("cached", "true")):
        assert main(["dpo", *words(tmp_path / name, precompute_ref_log_probs=precompute, **options)]) == 0
        events = [json.loads(line) for line in (tmp_path / name / "logging.jsonl").read_text().splitlines()]
        numbers = [(key, event[key]) for event in events for key in sorted(event) if "reward" in key or "loss" in key]
        runs.append((dict(numbers).keys(), torch.tensor([value for _, value in numbers])))
    assert runs[0][0] == runs[1][0] and "eval_rewards/margins" in runs[0][0]
    torch.testing.assert_close(runs[1][1], runs[0][1], rtol=1e-4, atol=1e-5)
    assert torch.equal(runs[2][1], runs[1][1])
    err = capsys.readouterr().err
    assert "reference log-probabilities of 10 rows" in err
    assert "0 of them from the token cache" in err and "10 of them from the token cache" in err
    adapter = {**options, "sft_type": "lora", "max_steps": 6}  # the base without its adapter is the same reference
    assert main(["dpo", *words(tmp_path / "lora", **adapter)]) == 0
    assert "10 of them from the token cache" in capsys.readouterr().err
    assert logged(tmp_path / "lora")[0]["rewards/chosen"] == pytest.approx(0, abs=1e-5)


def test_a_stream_of_pairs_trains_and_is_validated(tiny_llama_dir: Path, pairs: Path, tmp_path: Path) -> None:
    given = words(tmp_path / "run", model_id_or_path=tiny_llama_dir, dataset=pairs, streaming_val_size=4)
    assert main(["dpo", *given, "--streaming", "true"]) == 0
    events = [json.loads(line) for line in (tmp_path / "run" / "logging.jsonl").read_text().splitlines()]
    assert any("eval_rewards/margins" in event for event in events)


def test_a_dry_run_shows_both_answers(
    tiny_llama_dir: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(tmp_path / "run", model_id_or_path=tiny_llama_dir, dataset=pairs)
    assert main(["dpo", *given, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "chosen 1 (" in out and "rejected 2 (" in out
    assert not (tmp_path / "run").exists()


REFUSED = [
    ("dpo", ["--beta", "0"], "--beta 0"),
    ("dpo", ["--loss_type", "sigmod"], "sigmoid"),
    ("dpo", ["--loss_type", "simpo"], "--rlhf_type cpo"),
    ("dpo", ["--loss_type", "hinge", "--label_smoothing", "0.1"], "does not enter the loss hinge"),
    ("dpo", ["--loss_type", "robust", "--label_smoothing", "0.5"], "below 0.5"),
    ("dpo", ["--simpo_gamma", "0.5"], "--simpo_gamma has no effect on dpo"),
    ("dpo", ["--kl_coef", "0.5"], "--kl_coef has no effect on dpo"),
    ("dpo", ["--packing", "true"], "--packing has no effect"),
    ("dpo", ["--ref_model_id_or_path", "nowhere"], "--ref_model_id_or_path"),
    ("cpo", ["--simpo_gamma", "0.5"], "--simpo_gamma has no effect on the loss sigmoid"),
    ("simpo", ["--loss_type", "ipo"], "is not a loss of simpo"),
    ("orpo", ["--ref_model_id_or_path", "x"], "--ref_model_id_or_path has no effect on orpo"),
    ("kto", ["--batch_size", "1"], "--batch_size 1"),
    ("kto", ["--desirable_weight", "0"], "--desirable_weight 0"),
    ("kto", ["--auto_find_batch_size", "true"], "--auto_find_batch_size true would change the loss kto"),
    ("dpo", ["--loss_type", "aot", "--auto_find_batch_size", "true"], "would change the loss aot"),
    ("rlhf", ["--rlhf_type", "rm", "--use_loss_scale", "true"], "--use_loss_scale has no effect on rm"),
    ("dpo", ["--ref_model_id_or_path", ".", "--ref_model_revision", "v1"], "has no effect on the folder ."),
    ("dpo", ["--ref_model_revision", "v1"], "belongs to a model that is not named"),
    ("kto", ["--rpo_alpha", "0.5"], "--rpo_alpha has no effect on kto"),
    ("kto", ["--precompute_ref_log_probs", "true"], "--precompute_ref_log_probs true does not work with the loss kto"),
    ("dpo", ["--precompute_ref_log_probs", "true", "--streaming", "true", "--max_steps", "2"], "--streaming true"),
    ("dpo", ["--metric_for_best_model", "rewards/accuracy"], "did you mean rewards/accuracies?"),
    ("dpo", ["--metric_for_best_model", "rouge-l"], "does not tell the best checkpoint of dpo"),
]


@pytest.mark.parametrize(("kind", "extra", "message"), REFUSED)
def test_mistakes_end_before_the_weights_are_loaded(
    kind: str,
    extra: list[str],
    message: str,
    tiny_llama_dir: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--model_id_or_path", str(tiny_llama_dir), "--dataset", str(pairs), "--output_dir", str(tmp_path / "run")]
    assert main([kind, *given, *extra]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Params" not in err


@pytest.mark.slow
def test_samples_of_answers_before_and_after_change_nothing_else(
    tiny_llama_dir: Path, pairs: Path, labelled: Path, tmp_path: Path
) -> None:
    model = {"model_id_or_path": tiny_llama_dir, "learning_rate": 0.3}
    losses = []
    for count in (3, 0):
        run = tmp_path / str(count)
        given = words(run, dataset=pairs, dataset_test_ratio=0.5, answer_samples=count, seed=7, **model)
        assert main(["orpo", *given]) == 0
        losses.append([(event["loss"], event["grad_norm"]) for event in logged(run)])
    assert losses[0] == losses[1]
    assert not (tmp_path / "0" / "samples.jsonl").exists()
    samples = [json.loads(line) for line in (tmp_path / "3" / "samples.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    for sample in samples:
        row = rows[int(sample["row"].rpartition(":")[2]) - 1]
        assert row["query"] in sample["prompt"] and row["response"] not in sample["prompt"]
        assert (sample["chosen"], sample["rejected"]) == (row["response"], row["rejected_response"])
    assert len(samples) == 3 and any(sample["before"] != sample["after"] for sample in samples)
    run = tmp_path / "kto"
    options = {"dataset": labelled, "rlhf_type": "kto", "answer_samples": 2, **model}
    assert main(["rlhf", *words(run, **options)]) == 0
    first = [json.loads(line) for line in (run / "samples.jsonl").read_text().rstrip("\n").split("\n")]
    first[0]["before"] += " one\u2028two"  # a character that ends a line elsewhere
    (run / "samples.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in first))
    assert main(["rlhf", *words(run, **{**options, "max_steps": 3}), "--resume_from_checkpoint", "auto"]) == 0
    again = [json.loads(line) for line in (run / "samples.jsonl").read_text().rstrip("\n").split("\n")]
    assert [sample["before"] for sample in again] == [sample["before"] for sample in first]
    assert [set(sample) for sample in again] == [{"row", "prompt", "answer", "label", "before", "after"}] * 2
