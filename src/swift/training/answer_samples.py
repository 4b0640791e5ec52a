"""What a model answers before and after training, side by side in `samples.jsonl`, for people to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from swift import tuners
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.transaction import write_file
from swift.data.stream import StreamDataset
from swift.engines.base import SamplingParams
from swift.models.families import MediaProcessor
from swift.plan.samples import SamplesPlan
from swift.prompts.encode import Encoder
from swift.prompts.types import Media
from swift.training.artifacts import ends_of
from swift.training.chance import same_chance
from swift.training.generation_eval import last_reply
from swift.training.objectives.reference import evaluating
from swift.training.policy_gradient.sampling import sample

FILE = "samples.jsonl"
When = Literal["before", "after"]


class AnswerSamples:
    """The prompts of a few rows, the answers the rows have, and those the model gives before and after training."""

    def __init__(
        self,
        folder: Path,
        rows: Sequence[tuple[str, Mapping[str, Any]]],
        encoder: Encoder,
        plan: SamplesPlan,
        seed: int,
        images: MediaProcessor | None = None,
    ):
        self._images = images
        self.base_stays = plan.base_stays
        self._path = folder / FILE
        self._encoder, self._plan, self._seed = encoder, plan.sampling, seed
        self._prompts: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []
        for origin, row in rows:
            prompt, line = self._read(row)
            if prompt is not None:
                self._prompts.append(prompt)
                self._lines.append({"row": origin, "prompt": self._text(prompt["input_ids"]), **line})

    def carry_on(self, folder: Path) -> None:
        """Take the answers from before training out of the file of the run that this one goes on with."""
        if not (folder / FILE).is_file():
            return
        with (folder / FILE).open(encoding="utf-8") as file:  # an answer may hold other characters that end a line
            earlier = [json.loads(line) for line in file]
        known = {line["prompt"]: line["before"] for line in earlier if "before" in line}
        for line in self._lines:
            if line["prompt"] in known:
                line["before"] = known[line["prompt"]]

    def finish(self, model: nn.Module) -> None:
        """Ask the trained model, and the one that it was where that is still there and was not asked."""
        if self.base_stays:
            with tuners.without_adapter(model):
                self.take("before", model)
        self.take("after", model)

    def take(self, when: When, model: nn.Module) -> None:
        """Ask the model, unless it was asked, and write the file. What goes wrong is said, and the run goes on."""
        missing = [number for number, line in enumerate(self._lines) if when not in line]
        if not missing:
            return
        tokenizer, limit = self._encoder.tokens.tokenizer, self._plan.max_new_tokens
        what = "as it was before" if when == "before" else "after"
        log.info("the model %s training answers %d prompts (up to %d tokens each)", what, len(missing), limit)
        how = [self._sampling(number) for number in missing]
        prompts = [self._prompts[number] for number in missing]
        try:
            with evaluating(model), same_chance():
                answers = sample(tuners.base_model(model), tokenizer, prompts, how, len(prompts), self._images)
        except (SwiftError, RuntimeError) as error:  # memory, a model that cannot be stepped
            log.warning("no samples of answers %s training: %s", when, error)
            return
        for number, answer in zip(missing, answers, strict=True):
            self._lines[number][when] = self._text(answer.ids)
        write_file(self._path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines))
        if when == "after":
            log.info("answers before and after: %s", self._path)

    def _read(self, row: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The prompt of an encoded row with what it shows, and its answers as texts."""
        ends = ends_of(row)
        replies = {end: last_reply(one) for end, one in ends.items()}
        texts: dict[str, Any] = {
            "answer" if end == "row" else end: self._text(reply[1])
            for end, reply in replies.items()
            if reply is not None
        }
        prompts = [self._shown(reply[0], ends[end]) for end, reply in replies.items() if reply is not None]
        if "label" in row:
            texts["label"] = bool(row["label"])
        return (prompts[0] if prompts else None), texts

    def _shown(self, prompt: list[int], row: Mapping[str, Any]) -> dict[str, Any]:
        """A prompt with what it shows."""
        if self._images is None:
            return {"input_ids": prompt}
        return {"input_ids": prompt, "media": self._images.within(prompt, row.get("media", Media()))}

    def _sampling(self, number: int) -> SamplingParams:
        plan = self._plan
        return SamplingParams(
            max_tokens=plan.max_new_tokens,
            temperature=plan.temperature,
            top_k=plan.top_k,
            top_p=plan.top_p,
            repetition_penalty=plan.repetition_penalty,
            num_beams=plan.num_beams,
            seed=self._seed + number,
            stop=self._encoder.stop_strings,
            stop_token_ids=self._encoder.stop_token_ids,
        )

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._encoder.tokens.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def rows_to_sample(train: Any, val: Any, first: Mapping[str, Any], count: int) -> list[tuple[str, Mapping[str, Any]]]:
    """`count` rows spread over those held back and, where they are fewer, the training rows; with where they stand."""
    picked: list[tuple[str, Mapping[str, Any]]] = []
    for rows in (val, train):
        missing = count - len(picked)
        if isinstance(rows, StreamDataset):
            picked += [(rows.origin(0), first)][:missing]
        elif rows is not None and missing:
            numbers = range(0, len(rows), max(1, len(rows) // missing))[:missing]
            picked += [(rows.origin(number), rows[number]) for number in numbers]
    return picked
