"""`--predict_with_generate`: the model answers the validation rows and the answers are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from swift import tuners
from swift.core.log import once
from swift.engines.base import SamplingParams
from swift.models.families import MediaProcessor
from swift.params.groups import Generate
from swift.prompts.types import IGNORED, Media
from swift.training.companion_row import missing
from swift.training.objectives.reference import evaluating
from swift.training.policy_gradient.sampling import sample
from swift.training.rows_with_media import answering
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
        companions: Sequence[dict[str, Any]] = (),
    ):
        """`together`: no process computes without the others, whose number of passes has to be the same. `images` is
        the media side of a model that has one, which answers as it is served where a process computes by itself; else
        `companions` join prompts that show nothing (see `swift.training.companion_row`)."""
        self._rows = rows
        self._tokenizer = tokenizer
        self._flags = generate
        self._together = together
        self._images = images
        self._companions = companions
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
            prompts = [(prompt, media) for prompt, _, media in part]
            if self._images is not None and not self._together:
                generated = self._served(model, self._images, prompts, config)
            else:  # without prompts, others may still have some, and wait for our share of the weights
                generated = self._generate(model, prompts or [([self._stop_ids[0]], Media())], config)[: len(part)]
            pairs += [(self._text(ids), self._text(turn[1])) for ids, turn in zip(generated, part, strict=True)]
        if world > 1:
            shares: list[Any] = [None] * world
            dist.all_gather_object(shares, pairs)
            pairs = [pair for share in shares for pair in share]
        return scores(pairs)

    def _generate(
        self, model: Any, prompts: Sequence[tuple[list[int], Media]], config: GenerationConfig
    ) -> list[list[int]]:
        """By the model's own loop, which goes on until every process has its answers."""
        count, shown = len(prompts), self._shown(prompts)
        shown += missing(self._companions, [row["media"] for row in shown])
        longest = max(len(row["input_ids"]) for row in shown)
        ids = torch.full((len(shown), longest), config.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(shown):
            own = len(row["input_ids"])
            ids[i, longest - own :] = torch.tensor(row["input_ids"])
            mask[i, longest - own :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._images is not None:
            inputs |= self._images.inputs([row["media"] for row in shown], ids, None)
        with answering(tuners.base_model(model), self._images):
            out = model.generate(
                **{name: _moved(value, model) for name, value in inputs.items()},
                generation_config=config,
                synced_gpus=self._together,
            )
        return out[:count, longest:].tolist()

    def _shown(self, prompts: Sequence[tuple[list[int], Media]]) -> list[dict[str, Any]]:
        """Prompts with what stands in them of what their rows show."""
        within = self._images.within if self._images is not None else lambda _, media: media
        return [{"input_ids": ids, "media": within(ids, media)} for ids, media in prompts]

    def _served(
        self, model: Any, images: MediaProcessor, prompts: Sequence[tuple[list[int], Media]], config: GenerationConfig
    ) -> list[list[int]]:
        """By the engine that serves models, to which every family tells where its media stand."""
        shown = self._shown(prompts)
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


def _moved(tensor: Tensor, model: Any) -> Tensor:
    return tensor.to(model.device, model.dtype if tensor.is_floating_point() else tensor.dtype)


def last_reply(row: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """Prompt and expected ids of the last run of trained tokens in a row; None when there is none, or no prompt."""
    labels = row["labels"]
    end = next((i for i in range(len(labels), 0, -1) if labels[i - 1] != IGNORED), 0)
    start = end
    while start and labels[start - 1] != IGNORED:
        start -= 1
    return (row["input_ids"][:start], row["input_ids"][start:end]) if start else None
