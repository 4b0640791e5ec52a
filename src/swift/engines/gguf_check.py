"""Whether a GGUF file is the model it was made from: llama.cpp loads it, cuts texts and answers; PyTorch looks on.

llama.cpp writes its likeliest tokens, and the original reads them: where the original would have chosen the same token
each time, its own greedy answer is the same text. So 2,000 tokens cost the original ten forward passes.
"""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swift.core.errors import CheckFailed
from swift.engines.llama_server import LlamaServer
from swift.prompts.encode import Encoder
from swift.prompts.types import Conversation, Message

TEXTS = Path(__file__).with_name("gguf_texts.json")
NEW_TOKENS = 200
LEAST: Mapping[str, float] = {
    "f32": 0.99,
    "f16": 0.99,
    "bf16": 0.98,
    "q8_0": 0.95,
    "q5_1": 0.8,
    "q5_0": 0.8,
    "q4_1": 0.7,
    "q4_0": 0.7,
}
"""Share of greedy tokens that must be the original's, by the type of the file. It finds what went wrong: models of
billions of parameters lose less to few bits than one of 135 million, whose five bits gave 0.89."""
NEAR = 2e-2
"""Logits so close to the largest that rounding in 16 bits decides between them."""
ADDED = 100
"""Tokens added to the vocabulary that texts are made of: the newest ones, which are the user's own."""
NOT_QUANTIZED = ("f32", "f16", "bf16")
"""Types whose file may decide the other way where it is that close."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was compared, and what came of it."""

    type: str
    bytes: int
    texts: int
    """Texts that both tokenizers cut."""
    cut_otherwise: tuple[str, ...]
    """Those of which llama.cpp makes other ids, and the first that differ."""
    chat_template: str | None
    """How the chat template in the file writes another prompt than ours; None where it does not, or there is none."""
    prompts: int
    equal_answers: int
    """Prompts whose greedy answer is the original's, token for token."""
    tokens: int
    agreement: float
    """Share of llama.cpp's greedy tokens that are the original's choice in their place."""
    near: int
    """Tokens that differ where the original's two likeliest logits are as good as equal."""
    logprob_difference: float | None
    """Mean absolute difference of the two's log-probabilities of a token; None where llama.cpp told none."""
    least: float
    """The agreement asked for."""
    load_seconds: float
    tokens_per_second: float
    """Of llama.cpp, one answer at a time."""

    def faults(self) -> list[str]:
        """Why the file must not be used; empty when it may."""
        faults = [f"llama.cpp cuts a text otherwise: {text}" for text in self.cut_otherwise[:1]]
        near = self.near / self.tokens if self.tokens and self.type in NOT_QUANTIZED else 0.0
        if not self.agreement + near >= self.least:
            faults.append(f"{self.agreement:.1%} of greedy tokens are the original's, asked for are {self.least:.0%}")
        return faults

    def lines(self) -> list[str]:
        """For people."""
        told = "" if self.logprob_difference is None else f", log-probabilities {self.logprob_difference:.2g} apart"
        template = f"; the chat template in the file differs: {self.chat_template}" if self.chat_template else ""
        return [
            f"size:      {self.bytes / 1e6:.1f} MB as {self.type}",
            f"tokenizer: {self.texts - len(self.cut_otherwise)} of {self.texts} texts have the same ids{template}",
            f"answers:   {self.equal_answers} of {self.prompts} greedy answers are the original's token for token",
            f"agreement: {self.agreement:.2%} of {self.tokens} greedy tokens (asked for {self.least:.0%}; "
            f"{self.near} differ by a rounding){told}",
            f"speed:     {self.tokens_per_second:.0f} tokens/s for one answer in llama.cpp, "
            f"loaded in {self.load_seconds:.1f} s",
        ]


def check_gguf(
    file: Path,
    type: str,
    encoder: Encoder,
    reference: Callable[[], PreTrainedModel],
    *,
    positions: int,
    vocabulary: int,
    marks: bool = True,
    new_tokens: int = NEW_TOKENS,
    least: float | None = None,
) -> Check:
    """Compare the file with the model that `reference` loads, in fp32, after llama.cpp is done with it.

    No sequence is longer than the `positions` of the file, and `vocabulary` is the number of its embeddings.
    Without `marks` no text has a combining mark. `least` is the agreement asked for, if not that of the type.
    """
    tokenizer, described = encoder.tokens.tokenizer, json.loads(TEXTS.read_text("utf-8"))
    prompts = [ids for ids in _prompts(encoder, described) if len(ids) < positions]
    new_tokens = min(new_tokens, positions - max(map(len, prompts)))
    start = time.perf_counter()
    server = LlamaServer(file, context=max(map(len, prompts)) + new_tokens + 8, places=len(prompts))
    loaded = time.perf_counter()
    try:
        texts = [*described["texts"], *(str(tokenizer.decode(ids)) for ids in prompts), *_added(tokenizer, vocabulary)]
        texts = [text for text in texts if marks or not any(unicodedata.category(c).startswith("M") for c in text)]
        cut_otherwise = tuple(_cut_otherwise(server, tokenizer, texts))
        template = _template_difference(server, encoder)
        never = [number for number in _special_ids(tokenizer) if number < vocabulary]
        with ThreadPoolExecutor(len(prompts)) as pool:
            answers = list(pool.map(lambda ids: _answer(server, ids, never, new_tokens), prompts))
        begun = time.perf_counter()
        count = len(_answer(server, prompts[0], never, new_tokens, told=False)[0])
        seconds = time.perf_counter() - begun
    finally:
        server.end()
    seen = _read(reference(), prompts, answers, never)
    return Check(
        type=type,
        bytes=file.stat().st_size,
        texts=len(texts),
        cut_otherwise=cut_otherwise,
        chat_template=template,
        prompts=len(prompts),
        equal_answers=seen.equal,
        tokens=seen.tokens,
        agreement=seen.same / seen.tokens if seen.tokens else 0.0,
        near=seen.near,
        logprob_difference=seen.difference / seen.told if seen.told else None,
        least=LEAST[type] if least is None else least,
        load_seconds=loaded - start,
        tokens_per_second=count / seconds,
    )


def check_tokens(file: Path, encoder: Encoder, vocabulary: int) -> None:
    """Raise CheckFailed when llama.cpp, by the file, cuts texts otherwise than the encoder's tokenizer."""
    described = json.loads(TEXTS.read_text("utf-8"))
    server = LlamaServer(file, context=256, places=1)
    try:
        texts = [
            *described["texts"],
            *(str(encoder.tokens.tokenizer.decode(ids)) for ids in _prompts(encoder, described)),
            *_added(encoder.tokens.tokenizer, vocabulary),
        ]
        different = list(_cut_otherwise(server, encoder.tokens.tokenizer, texts))
    finally:
        server.end()
    if different:
        raise CheckFailed(
            f"the tokenizer read out of {file} is not the one that llama.cpp finds in it",
            why=different[0],
            next="give the model that the file was made from to --model_id_or_path, and --infer_backend llamacpp",
        )


def _added(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Iterator[str]:
    """A text with each token that was added and has an embedding, of those for words also with spaces around it."""
    known = sorted(number for number in tokenizer.added_tokens_decoder if number < vocabulary)
    for token in (tokenizer.added_tokens_decoder[number] for number in known[-ADDED:]):
        yield f"x{token.content}y" if token.special else f"x{token.content}y The {token.content} is"


Answer = tuple[list[int], list[float]]
"""Tokens and their log-probabilities."""


@dataclass
class _Seen:
    """What the original makes of llama.cpp's answers, added up."""

    same: int = 0
    tokens: int = 0
    equal: int = 0
    near: int = 0
    told: int = 0
    difference: float = 0.0


def _read(model: PreTrainedModel, prompts: list[list[int]], answers: list[Answer], never: list[int]) -> _Seen:
    seen = _Seen()
    for ids, (tokens, told) in zip(prompts, answers, strict=True):
        logits = _logits(model, [*ids, *tokens])[len(ids) - 1 : -1]
        chosen = torch.tensor(tokens, dtype=torch.long)[:, None]
        log_probs = logits.log_softmax(-1).gather(1, chosen)[:, 0]
        logits[:, never] = -torch.inf  # as it was for llama.cpp
        equal = logits.argmax(-1) == chosen[:, 0]
        behind = logits.amax(-1) - logits.gather(1, chosen)[:, 0]
        seen.same += int(equal.sum())
        seen.tokens += len(tokens)
        seen.equal += bool(equal.all())
        seen.near += int((~equal & (behind < NEAR)).sum())
        if len(told) == len(tokens):  # llama.cpp tells nothing of tokens that end inside a character
            seen.difference += float((log_probs - torch.tensor(told)).abs().sum())
            seen.told += len(told)
    return seen


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    batch = torch.tensor([ids], device=model.device)
    return model(input_ids=batch, use_cache=False).logits[0].float().cpu()


def _prompts(encoder: Encoder, described: Mapping[str, Any]) -> list[list[int]]:
    tokenizer = encoder.tokens.tokenizer
    asked = [Conversation((Message("user", question),)) for question in described["questions"]]
    return [*map(tokenizer.encode, described["prompts"]), *map(encoder.prompt_ids, asked)]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """No answer ends before its time: these are not chosen, by either."""
    return sorted(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)


def _answer(server: LlamaServer, ids: list[int], never: list[int], count: int, *, told: bool = True) -> Answer:
    bias = [[number, False] for number in never]
    body = {"prompt": ids, "n_predict": count, "temperature": 0, "samplers": ["temperature"], "logit_bias": bias}
    reply = server.post("/completion", {**body, "return_tokens": True, "n_probs": int(told)})
    probabilities = reply.get("completion_probabilities", [])
    return reply["tokens"], [each["logprob"] for each in probabilities]


def _cut_otherwise(server: LlamaServer, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Iterator[str]:
    for text in texts:
        for whole in (False, True):
            ours, theirs = tokenizer.encode(text, add_special_tokens=whole), server.tokens(text, whole=whole)
            if ours != theirs:
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
                names = [tokenizer.convert_ids_to_tokens(ids[at : at + 3]) for ids in (ours, theirs)]
                yield f"{text!r}, from token {at} on {names[1]} instead of {names[0]}"
                break


def _template_difference(server: LlamaServer, encoder: Encoder) -> str | None:
    tokenizer = encoder.tokens.tokenizer
    if not tokenizer.chat_template:
        return None
    question = "What is 17 + 25?"
    ours = str(tokenizer.decode(encoder.prompt_ids(Conversation((Message("user", question),)))))
    theirs = server.post("/apply-template", {"messages": [{"role": "user", "content": question}]})["prompt"]
    same = ours == theirs or ours == f"{tokenizer.bos_token}{theirs}"
    return None if same else f"it writes {theirs!r} instead of {ours!r}"
