"""Makes what a cell of the fault table needs: a model folder, rows in the tool's own format, damage to a checkpoint.

The model is a Llama of two layers with SmolLM2's chat template and a tokenizer of a thousand tokens, learned from the
rows: small enough that a cell takes seconds, and large enough to learn a handful of answers by heart. Rows are made up
here once, neutrally, and written as each tool's own documentation writes them, so that no tool meets a format that is
not its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

Row = dict[str, Any]
"""`question`, `answer`, `system`, `history` (pairs), `rejected`, `label`: what is not there is not in the row."""

VOCABULARY = 1024
COLOURS = ("Amber", "Violet", "Green", "Crimson", "Silver", "Indigo")
CATALOGUE, PAINTER = "You are a catalogue.", "You are a painter."
TEXTS = (
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "system user assistant",
    *COLOURS,
)
REWARDS = """def score(completions, **columns):
    return [1.0 for _ in completions]
"""
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


# Models.


def make_models(folder: Path, smollm2: Path) -> None:
    """All model folders that cells link to; nothing where they are already."""
    if (folder / "ready").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    _model(folder / "plain-model", smollm2)
    _model(folder / "other-model", smollm2, seed=1)
    _model(folder / "short-context-model", smollm2, context=128)
    for name in ("nan", "no-pad", "new-token"):
        shutil.copytree(folder / "plain-model", folder / f"{name}-model")
    weights = load_file(folder / "nan-model" / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, folder / "nan-model" / "model.safetensors", metadata={"format": "pt"})
    _change_json(folder / "no-pad-model" / "tokenizer_config.json", lambda config: config.pop("pad_token"))
    _change_json(folder / "no-pad-model" / "config.json", lambda config: config.pop("pad_token_id", None))
    file = str(folder / "new-token-model" / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.add_special_tokens(["<|word|>"])
    assert tokenizer.token_to_id("<|word|>") == VOCABULARY
    tokenizer.save(file)
    (folder / "ready").touch()


def _model(folder: Path, smollm2: Path, seed: int = 0, context: int = 2048) -> None:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": context}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": True}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, **ends)).save_pretrained(folder)
    # Both generations of transformers read this folder: the older one wants another class, and the template in here.
    _tokenizer().save(str(folder / "tokenizer.json"))
    marks = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    config = {
        **{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<|endoftext|>", "model_max_length": context},
        **{"chat_template": (smollm2 / "chat_template.jinja").read_text(), **marks},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    _change_json(folder / "config.json", lambda found: found.update(torch_dtype="float32"))


def _tokenizer() -> Tokenizer:
    """Byte-level BPE with the marks of ChatML under the ids that they have in SmolLM2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=marks, initial_alphabet=alphabet)
    names = [f"word{n} " for n in range(VOCABULARY)]  # so that there are merges enough for all tokens
    tokenizer.train_from_iterator([*TEXTS, *(str(row) for name in ROWS for row in rows(name)), *names], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def _change_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=2))


# Rows.


def rows(name: str) -> list[Row]:
    """The rows of that name, as they are before a tool's format."""
    return ROWS[name]()


def _plain(count: int = 24, word: str = "item") -> list[Row]:
    return [
        {"question": f"Which colour has {word} {n}?", "answer": f"{COLOURS[n % 6]}, as {word} {n} is painted."}
        for n in range(count)
    ]


def _some(change: Callable[[Row], object]) -> list[Row]:
    """Plain rows of which the 4th, the 11th and the 18th are changed."""
    made = _plain()
    for place in (3, 10, 17):
        change(made[place])
    return made


def _long(text: str, words: int) -> str:
    return " ".join([text, *(f"and {COLOURS[n % 6].lower()}" for n in range(words // 2))])


def _long_questions() -> list[Row]:
    return [{**row, "question": _long(row["question"], 120)} for row in _plain()]


def _long_answers() -> list[Row]:
    return [{**row, "answer": _long(row["answer"], 200 if n % 6 == 0 else 0)} for n, row in enumerate(_plain())]


def _of_200_tokens() -> list[Row]:
    return [{**row, "answer": _long(row["answer"], 160)} for row in _plain()]


def _question(item: int) -> str:
    return f"Name a colour of item {item}."


def _three_colours() -> list[Row]:
    return [{"question": _question(n + 1), "answer": COLOURS[n]} for n in range(3)]


def _short_and_long() -> list[Row]:
    long = {"question": "List colours.", "answer": _long("Here they are:", 20), "system": CATALOGUE}
    return [{"question": _question(1), "answer": COLOURS[0], "system": CATALOGUE}, long]


def _two_turns() -> list[Row]:
    first = (_question(1), COLOURS[0])
    return [{"question": _question(2), "answer": COLOURS[1], "history": [first], "system": CATALOGUE}] * 2


def _two_systems() -> list[Row]:
    told = ((CATALOGUE, COLOURS[0]), (PAINTER, COLOURS[1]))
    return [{"question": _question(1), "answer": answer, "system": system} for system, answer in told]


def _lengths(*words: int) -> list[Row]:
    return [{"question": _question(n), "answer": _long(COLOURS[n], count)} for n, count in enumerate(words)]


def _pairs() -> list[Row]:
    made = [{**row, "rejected": f"{COLOURS[(n + 1) % 6]}."} for n, row in enumerate(_plain(8))]
    return [{**row, "rejected": row["answer"]} if n in (2, 5) else row for n, row in enumerate(made)]


ROWS: dict[str, Callable[[], list[Row]]] = {
    "plain": _plain,
    "other": lambda: _plain(word="box"),
    "long-questions": _long_questions,
    "long-answers": _long_answers,
    "200-tokens": _of_200_tokens,
    "answer-missing": lambda: _some(lambda row: row.pop("answer")),
    "answer-empty": lambda: _some(lambda row: row.update(answer="")),
    "broken-json": _plain,
    "not-utf8": lambda: [{**row, "answer": "颜色是" + row["answer"]} for row in _plain()],
    "unknown-columns": lambda: [{"question_text": row["question"], "reply_text": row["answer"]} for row in _plain()],
    "new-token": lambda: [{**row, "answer": "<|word|> " + row["answer"]} for row in _plain()],
    "three-colours": _three_colours,
    "short-and-long": _short_and_long,
    "two-turns": _two_turns,
    "two-systems": _two_systems,
    "four-lengths": lambda: _lengths(0, 8, 30, 60),
    "two-lengths": lambda: _lengths(20, 40),
    "asked": lambda: _plain(2),
    "questions": lambda: [{"question": row["question"]} for row in _plain(8)],
    "equal-pairs": _pairs,
    "kto-one-label": lambda: [{**row, "label": True} for row in _plain(8)],
}


def write_rows(name: str, file: Path, render: Callable[[Row], dict[str, Any]]) -> None:
    """Write the rows of that name as JSON lines, with the damage that belongs to the name."""
    known = not name.startswith("unknown")
    lines = [json.dumps(render(row) if known else row, ensure_ascii=False) for row in rows(name)]
    if name == "broken-json":
        lines[6] = lines[6][: len(lines[6]) // 2]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="gbk" if name == "not-utf8" else "utf-8")


# Damage.


def newest_checkpoint(out: Path) -> Path:
    """The folder with the highest step of all below `out`."""
    found = [path for path in out.rglob("checkpoint-*") if path.is_dir() and path.name.partition("-")[2].isdigit()]
    return max(found, key=lambda path: int(path.name.partition("-")[2]))


def damage(kind: str, out: Path) -> None:
    """What a crash leaves: weights cut in half, or no state of the optimizer."""
    checkpoint = newest_checkpoint(out)
    if kind == "cut-weights":
        (weights,) = (file for file in checkpoint.glob("*.safetensors") if "model" in file.name)
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif kind == "lose-optimizer":
        lost = [file for file in checkpoint.rglob("*optimizer*") if file.is_file()]
        assert lost, "there is no state of an optimizer to lose"
        for file in lost:
            file.unlink()
    else:
        raise ValueError(kind)
