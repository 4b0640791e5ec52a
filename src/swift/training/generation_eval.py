"""`--predict_with_generate`: the model answers the validation rows and the answers are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from transformers import GenerationConfig, PreTrainedTokenizerBase

from swift import tuners
from swift.core.log import once
from swift.engines.base import SamplingParams
from swift.models.families import MediaProcessor
from swift.params.groups import Generate
from swift.prompts.types import IGNORED, Media
from swift.training.objectives.reference import evaluating
from swift.training.policy_gradient.sampling import sample
from swift.training.text_metrics import scores


class Answers:
    """Generates an answer to each validation row and compares it with the row's last trained reply."""

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        generate: Generate,
        stop_ids: Sequence[int],
        together: bool = False,
        images: MediaProcessor | None = None,
    ):
        """`together`: no process computes without the others, whose number of passes has to be the same. `images` is
        the media side of a model that has one, which answers as it is served."""
        self._rows = rows
        self._tokenizer = tokenizer
        self._flags = generate
        self._together = together
        self._images = images
        self._stop_ids: list[Any] = list(dict.fromkeys([*stop_ids, tokenizer.eos_token_id]))

    @torch.no_grad()
    def __call__(self, model: Any, batch_size: int) -> dict[str, float]:
        """`rouge-1`, `rouge-2`, `rouge-l`, `bleu-4` over all rows; each process answers its share."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        own = [self._rows[number] for number in range(rank, len(self._rows), world)]
        turns = [(*reply, row.get("media", Media())) for row in own if (reply := last_reply(row)) is not None]
        config = self._config(model.generation_config)
        pairs: list[tuple[str, str]] = []
        end = -(-len(self._rows) // world) if self._together else len(turns)
        for start in range(0, end, batch_size):
            part = turns[start : start + batch_size]
            if not part:  # others still have some, and wait for our share of the weights
                self._generate(model, [[self._stop_ids[0]]], config)
                continue
            if self._images is None:
                generated = self._generate(model, [prompt for prompt, *_ in part], config)
            else:
                generated = self._served(model, self._images, [(prompt, media) for prompt, _, media in part], config)
            pairs += [(self._text(ids), self._text(turn[1])) for ids, turn in zip(generated, part, strict=True)]
        if world > 1:
            shares: list[Any] = [None] * world
            dist.all_gather_object(shares, pairs)
            pairs = [pair for share in shares for pair in share]
        return scores(pairs)

    def _generate(self, model: Any, prompts: list[list[int]], config: GenerationConfig) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), config.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        device = model.device
        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            synced_gpus=self._together,
        )
        return out[:, longest:].tolist()

    def _served(
        self, model: Any, images: MediaProcessor, prompts: Sequence[tuple[list[int], Media]], config: GenerationConfig
    ) -> list[list[int]]:
        """By the engine that serves models, to which every family tells where its media stand."""
        shown = [{"input_ids": ids, "media": images.within(ids, media)} for ids, media in prompts]
        how = SamplingParams(
            max_tokens=self._flags.max_new_tokens,
            temperature=float(config.temperature or 1) if config.do_sample else 0.0,
            top_k=int(config.top_k or 0),
            top_p=float(config.top_p or 1),
            repetition_penalty=float(config.repetition_penalty or 1),
            num_beams=self._flags.num_beams,
            stop_token_ids=tuple(self._stop_ids),
        )
        with evaluating(model):
            answers = sample(tuners.base_model(model), self._tokenizer, shown, [how] * len(shown), len(shown), images)
        return [list(answer.ids) for answer in answers]

    def _config(self, own: GenerationConfig) -> GenerationConfig:
        """The model's own generation settings with what the user said on top."""
        flags = self._flags
        given = {
            "do_sample": flags.do_sample,
            "temperature": flags.temperature,
            "top_k": flags.top_k,
            "top_p": flags.top_p,
            "repetition_penalty": flags.repetition_penalty,
        }
        merged = {**own.to_dict(), **{name: value for name, value in given.items() if value is not None}}
        if flags.temperature == 0 or not merged.get("do_sample"):
            if not merged.get("do_sample") and flags.temperature:
                once("--predict_with_generate takes the likeliest token: --temperature counts with --do_sample true")
            merged.update(do_sample=False, temperature=1.0, top_p=1.0, top_k=50)
        merged.pop("max_length", None)
        return GenerationConfig(
            **{
                **merged,
                "max_new_tokens": flags.max_new_tokens,
                "num_beams": flags.num_beams,
                "use_cache": True,
                "eos_token_id": self._stop_ids,
                "pad_token_id": self._tokenizer.pad_token_id,
            }
        )

    def _text(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text if isinstance(text, str) else "".join(text)


def last_reply(row: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """Prompt and expected ids of the last run of trained tokens in a row; None when there is none, or no prompt."""
    labels = row["labels"]
    end = next((i for i in range(len(labels), 0, -1) if labels[i - 1] != IGNORED), 0)
    start = end
    while start and labels[start - 1] != IGNORED:
        start -= 1
    return (row["input_ids"][:start], row["input_ids"][start:end]) if start else None
