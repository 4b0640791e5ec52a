"""From conversations to token ids, labels and weights: the one encoder that every command uses."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from swift.catalog import Catalog
from swift.catalog.entries import MediaText
from swift.core.errors import SwiftError
from swift.core.log import once
from swift.core.optional_imports import MissingPackage
from swift.plan.prompt import JINJA, PromptPlan
from swift.prompts.grounding import grounded
from swift.prompts.images import (
    FAULTS,
    BadImage,
    MediaTokens,
    in_front,
    odd_tags,
    placed,
    tagged,
    untagged,
    without_answer,
)
from swift.prompts.jinja import JinjaTemplate
from swift.prompts.loss_scale import load_loss_scale
from swift.prompts.template import DataTemplate
from swift.prompts.template_media import one_a_turn, tagged_by_template, written
from swift.prompts.tokens import Tokens
from swift.prompts.tool_calls import CallSyntax
from swift.prompts.types import IGNORED, Conversation, Encoded, Example, Media, Message, Origin, Preference, Segment

NO_MEDIA = Media()
PLAIN = "default-generation"
"""The template of models that have none."""


class TooLong(SwiftError):
    """The row has more tokens than `max_length` and truncation_strategy `delete` leaves it out."""

    def __init__(self, length: int, limit: int, origin: Origin | None):
        super().__init__(
            f"the row has {length} tokens, --max_length allows {limit}",
            where=None if origin is None else str(origin),
            next="raise --max_length, or --truncation_strategy truncation_left",
        )
        self.length = length
        self.limit = limit


class AnswerTooLong(SwiftError):
    """No prompt would be left of the row if its beginning were cut off until it fits."""

    def __init__(self, length: int, limit: int, origin: Origin | None):
        super().__init__(
            f"the answer and the shortest prompt have {length} tokens, --max_length allows {limit}",
            where=None if origin is None else str(origin),
            next="raise --max_length",
        )
        self.length = length
        self.limit = limit


class NoEmbedding(SwiftError):
    """The row has a token that the tokenizer knows and the model does not."""

    def __init__(self, token: str, rows: int, origin: Origin | None):
        super().__init__(
            f"the row has the token {token}, and the model has embeddings for {rows} tokens only",
            where=None if origin is None else str(origin),
            next="call resize_token_embeddings(len(tokenizer)) and save the model again",
        )


@dataclass(frozen=True)
class PreferenceEncoded:
    """The two ends of a preference, each with its prompt. KTO rows have `chosen` and a `label`."""

    chosen: Encoded
    rejected: Encoded | None
    label: bool | None


def size_of_image(source: str) -> tuple[int, int]:
    """Width and height of an image; Pillow is loaded with the first."""
    from swift.prompts.image_header import size_of

    return size_of(source)


def build_encoder(
    plan: PromptPlan,
    tokenizer: Any,
    catalog: Catalog,
    images: MediaTokens | None = None,
    template_media: bool = False,
) -> Encoder:
    """The encoder a plan asks for; `images` for a model that takes them, `template_media` without a model.

    Raises SwiftError when the template does not fit the tokenizer or the plan.
    """
    loss_scale = None if plan.loss_scale is None else load_loss_scale(plan.loss_scale)
    options: dict[str, Any] = {"system": plan.system, "tools_format": plan.tools_format, "loss_scale": loss_scale}
    template: DataTemplate | JinjaTemplate
    if plan.template_type == JINJA and (plan.given or tokenizer.chat_template):
        template = JinjaTemplate(tokenizer, **options)
    else:
        name = PLAIN if plan.template_type == JINJA else plan.template_type
        if plan.template_type == JINJA:
            once(f"the tokenizer has no chat template, so rows are written as plain text (template {PLAIN})")
        template = DataTemplate(catalog.templates.get(name), tokenizer, **options)
    tokens = Tokens(tokenizer, whole=isinstance(template, JinjaTemplate))
    return Encoder(plan, template, tokens, images, template_media=template_media)


class Encoder:
    """Encodes conversations and preferences by one plan. It can be pickled for worker processes."""

    def __init__(
        self,
        plan: PromptPlan,
        template: DataTemplate | JinjaTemplate,
        tokens: Tokens,
        images: MediaTokens | None = None,
        *,
        template_media: bool = False,
    ):
        """`template_media` writes media of rows as the template alone has them, where no model says more."""
        self.plan = plan
        self._template_media = template_media
        self._media_text = template.entry.media if isinstance(template, DataTemplate) else MediaText()
        self.images = images
        self.template = template
        self.tokens = tokens
        self.template_type = template.name
        self._turn_end = self._ids(template.suffix)

    def encode(
        self, conversation: Conversation, inference: bool = False, options: Mapping[str, Any] | None = None
    ) -> list[Encoded]:
        """The examples of one conversation: one, or one a turn where the template does not keep its earlier text.

        With `inference` the prompt to answer. `options` are variables of a Jinja chat template, such as
        enable_thinking. Raises TooLong when truncation drops it, SwiftError when the template cannot express it.
        """
        (encoded,) = self.encode_batch([conversation], inference, options)
        if isinstance(encoded, SwiftError):
            raise encoded
        return encoded

    def encode_batch(
        self,
        conversations: Sequence[Conversation],
        inference: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> list[list[Encoded] | SwiftError]:
        """Many conversations with one call of the tokenizer. A row's own fault stands in its place, unraised."""
        rendered: list[list[Example] | SwiftError] = []
        for conversation in conversations:
            try:
                rendered.append(self._render(conversation, inference=inference, options=options))
            except MissingPackage:
                raise
            except SwiftError as error:
                rendered.append(error)
        good = [one.segments for examples in rendered if not isinstance(examples, SwiftError) for one in examples]
        ids = iter(self.tokens.of_segments(good))
        encoded: list[list[Encoded] | SwiftError] = []
        for conversation, examples in zip(conversations, rendered, strict=True):
            if isinstance(examples, SwiftError):
                encoded.append(examples)
                continue
            pairs = [(example, next(ids)) for example in examples]
            try:
                whole = [self._assemble(example, given, conversation) for example, given in pairs]
                encoded.append([self._cut(one, self._excess([one], conversation.origin)) for one in whole])
            except (TooLong, NoEmbedding) as error:
                encoded.append(error)
        return encoded

    def _render(
        self,
        conversation: Conversation,
        *,
        inference: bool = False,
        last_only: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> list[Example]:
        """The template's examples, with the tokens of images in the place of their tags."""
        render = partial(self.template.render, inference=inference, last_only=last_only, options=options)
        if self.images is None and not (self._template_media and conversation.media != NO_MEDIA):
            return render(conversation)
        size = size_of_image if self.images is None else self.images.size
        box_size = self.images.box_size if self.images is not None and self.images.boxes_in_pixels else None
        conversation, remarks = grounded(conversation, self._media_text, size, box_size)
        if self.images is None:
            conversation = tagged_by_template(conversation, self._media_text)
            examples = render(conversation)
            return [written(example, conversation.media, self._media_text) for example in examples]
        media = conversation.media
        put, place = (untagged, in_front) if self.images.stands_first else (tagged, placed)
        examples = render(put(one_a_turn(conversation, self._media_text), self.images))
        whole = self.tokens.whole
        seen = [place(example, media, self.images, self._media_text, whole=whole) for example in examples]
        remarks += odd_tags(conversation)
        if remarks:
            seen[-1] = replace(seen[-1], rewrites=(*seen[-1].rewrites, *remarks))
        for kind, fault in FAULTS.items():
            count, all_of = len(seen[-1].media.of(kind)), len(media.of(kind))
            if count != all_of:
                raise fault(f"the template {self.template_type} writes {count} of {all_of} {kind}")
        return seen

    def encode_preference(self, preference: Preference, rounds: Literal["last", "all"] = "last") -> PreferenceEncoded:
        """Both ends of a preference, trained on the last answer (`all` for ORPO). Raises as `encode` does.

        Truncation takes the same number of tokens from the start of both, so that their prompts stay the same, and
        none of their last answers: AnswerTooLong when there is not so much prompt.
        """
        ends = [end for end in (preference.chosen, preference.rejected) if end is not None]
        if self.images is not None and without_answer(ends[0]).media != without_answer(ends[-1]).media:
            raise BadImage("one answer has tags of media that the other has not, and their prompts would differ")
        rendered = [self._render(end, last_only=rounds == "last")[-1] for end in ends]
        ids = self.tokens.of_segments([example.segments for example in rendered])
        whole = [self._assemble(*three) for three in zip(rendered, ids, ends, strict=True)]
        origin = preference.chosen.origin
        excess = self._excess(whole, origin)
        spare = min(map(self._prompt_length, ends)) - 1 if excess else 0
        if excess > spare:
            assert self.plan.max_length is not None
            raise AnswerTooLong(self.plan.max_length + excess - spare, self.plan.max_length, origin)
        cut = [self._cut(one, excess) for one in whole]
        return PreferenceEncoded(cut[0], cut[1] if len(cut) == 2 else None, preference.label)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """The ids of the prompt to answer, at any length."""
        (ids,) = self.tokens.of_segments([self._render(conversation, inference=True)[-1].segments])
        return [token for segment in ids for token in segment]

    def text_ids(self, conversation: Conversation) -> list[int]:
        """The ids of a finished conversation, at any length; where it makes several examples, of the last one."""
        (ids,) = self.tokens.of_segments([self._render(conversation)[-1].segments])
        return [token for segment in ids for token in segment]

    def answered(self, conversation: Conversation) -> Encoded:
        """A finished conversation as training on its last answer has it, at any length. Raises as `encode` does."""
        example = self._render(conversation, last_only=True)[-1]
        (ids,) = self.tokens.of_segments([example.segments])
        return self._assemble(example, ids, conversation)

    @property
    def turn_end(self) -> tuple[int, ...]:
        """The ids that end an answer."""
        return tuple(self._turn_end)

    def opens_twice(self, ids: Sequence[int]) -> bool:
        """Whether an example begins with two bos tokens: the template wrote one, and the row's text another."""
        return len(ids) > 1 and ids[0] == ids[1] == self.tokens.bos

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return self.template.stop_strings

    @property
    def tool_stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer as well when the conversation has tools."""
        return self.template.tools.stop

    @property
    def call_syntax(self) -> CallSyntax | None:
        """How the prompt has a model write tool calls; None where that is not known."""
        return self.template.tools.calls

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Token ids that end an answer: the end of the turn, where it is one token, and the tokenizer's eos."""
        ends = [self._turn_end[0]] if len(self._turn_end) == 1 else []
        return tuple(dict.fromkeys([*ends, *self.tokens.eos]))

    def parse_reply(self, text: str) -> Message:
        """A generated answer as a message, with its tool calls if the template's format shows any."""
        return self.template.parse_reply(text)

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that decides the encoding of a row: template, tokenizer and options."""
        plan = self.plan
        options = [plan.max_length, plan.truncation_strategy, plan.loss_scale and repr(self.template.loss_scale)]
        if plan.vocab_size is not None:
            options.append(plan.vocab_size)
        if self.images is not None:
            options += [dict(self.images.facts), asdict(self._media_text)]
        facts = json.dumps([self.template.facts(), self.tokens.digest, options], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()

    def _assemble(self, example: Example, ids: Sequence[Sequence[int]], row: Conversation) -> Encoded:
        segments = example.segments
        weighted = self.template.loss_scale is not None or any(segment.weight not in (0, 1) for segment in segments)
        input_ids: list[int] = []
        labels: list[int] = []
        scales: list[float] = []
        gap: int | None = None
        end_weight: float | None = None
        for segment, tokens in zip(segments, ids, strict=True):
            start = len(input_ids)
            input_ids += tokens
            if weighted:
                scales += [segment.weight] * len(tokens)
            if segment.weight > 0:
                if gap is not None and tokens:
                    self._end_turn(labels, scales, gap, start, end_weight)
                    gap = None
                labels += tokens
            else:
                labels += [IGNORED] * len(tokens)
                if gap is None and tokens and start and labels[start - 1] != IGNORED:
                    gap, end_weight = -1 if segment.inside_turn else start, segment.end_weight
        if gap is not None and end_weight is not None:
            # No answer behind this one is trained; its end is all the same.
            self._end_turn(labels, scales, gap, len(labels), end_weight)
        rows = self.plan.vocab_size
        if rows is not None and max(input_ids, default=0) >= rows:
            raise NoEmbedding(self.tokens.decode([max(input_ids)]), rows, row.origin)
        media = row.media if self.images is None else replace(example.media, objects=row.media.objects)
        return Encoded(input_ids, labels, scales if weighted else None, media, rewrites=example.rewrites)

    def _end_turn(self, labels: list[int], scales: list[float], gap: int, until: int, weight: float | None) -> None:
        """Teach that an answer ends: the labels after it carry the template's end of turn, whatever stands there.

        Without it a template whose separator is not its suffix would never train the end of an earlier answer. `scales`
        are empty where nothing is weighted; a `weight` of None leaves them as they are.
        """
        end = gap + len(self._turn_end)
        if gap <= 0 or self.tokens.whole or until < end:
            return
        labels[gap:end] = self._turn_end
        if scales and weight is not None:
            scales[gap:end] = [weight] * len(self._turn_end)

    def _excess(self, encoded: Sequence[Encoded], origin: Origin | None) -> int:
        """Tokens of the longest that do not fit. Raises TooLong when they are not to be cut off; images never are."""
        limit = self.plan.max_length
        longest = max(len(one.input_ids) for one in encoded)
        if limit is None or longest <= limit:
            return 0
        excess = longest - limit
        spared = [spare for one in encoded if (spare := self._spare(one)) is not None]
        if self.plan.truncation_strategy == "delete" or any(excess > spare for spare in spared):
            raise TooLong(longest, limit, origin)
        return excess

    def _spare(self, encoded: Encoded) -> int | None:
        """How many tokens stand before the first medium and before what opens it; None where nothing is shown."""
        if self.images is None:
            return 0 if self._template_media and encoded.media.any else None
        pieces = {token: name for name, token in self.images.tokens.items()}
        first = next((at for at, token in enumerate(encoded.input_ids) if token in pieces), None)
        if first is None:
            return None
        texts = self.images.written(encoded.media, self._media_text).values()
        heads = [text.partition(pieces[encoded.input_ids[first]]) for of_kind in texts for text in of_kind]
        head = max((head.strip() for head, name, _ in heads if name), key=len, default="")
        for start in range(first, max(-1, first - 2 - len(head.encode())), -1):
            if head in self.tokens.decode(encoded.input_ids[start:first]):
                return start
        return 0

    def _cut(self, encoded: Encoded, count: int) -> Encoded:
        """Without its first `count` tokens."""
        if not count:
            return encoded
        scales = encoded.loss_scale
        return replace(
            encoded,
            input_ids=encoded.input_ids[count:],
            labels=encoded.labels[count:],
            loss_scale=None if scales is None else scales[count:],
            truncated=count,
        )

    def _prompt_length(self, conversation: Conversation) -> int:
        """Tokens before the last answer."""
        segments = self._render(conversation, last_only=True)[-1].segments
        (ids,) = self.tokens.of_segments([segments])
        before = itertools.takewhile(lambda piece: not piece[0].weight, zip(segments, ids, strict=True))
        return sum(len(tokens) for _, tokens in before)

    def _ids(self, pieces: Sequence[str | tuple[int, ...]]) -> list[int]:
        return [token for ids in self.tokens.of_segments([[Segment(piece) for piece in pieces]])[0] for token in ids]
