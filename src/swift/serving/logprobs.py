"""Log-probabilities of an answer in the forms of chat and of completions."""

from __future__ import annotations

from collections.abc import Sequence

from swift.engines.base import TokenLogprob
from swift.serving.schema import ChatLogprobs, CompletionLogprobs, TopLogprob
from swift.serving.token_bytes import TokenBytes, characters

LOWEST = -9999.0
"""Stands for a log-probability of minus infinity, which JSON cannot say; OpenAI uses the same number."""


class Logprobs:
    """Writes the log-probabilities of one answer, piece by piece; `spaced` where it keeps the space in front of it."""

    def __init__(self, token_bytes: TokenBytes, *, spaced: bool = False):
        self._bytes = token_bytes
        self._begun = spaced
        self._characters = 0

    def chat(self, tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
        """The next tokens in the form of chat answers."""
        return {
            "content": [
                {
                    "token": token.token,
                    "logprob": max(token.logprob, LOWEST),
                    "bytes": None if own is None else list(own),
                    "top_logprobs": [self._likely(*likely) for likely in token.top],
                }
                for token, own in zip(tokens, self._next(tokens), strict=True)
            ]
        }

    def older(self, tokens: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """The next tokens in the form of /v1/completions, with the character of the answer that each begins in."""
        offsets = []
        for own in self._next(tokens):
            inside = own is not None and characters(own[:1]) < len(own[:1])
            offsets.append(max(0, self._characters - inside))
            self._characters += characters(own or b"")
        return {
            "tokens": [self._name(token.token, token.token_id) for token in tokens],
            "token_logprobs": [max(token.logprob, LOWEST) for token in tokens],
            "top_logprobs": [
                {self._name(text, token_id): max(logprob, LOWEST) for text, token_id, logprob in token.top}
                for token in tokens
            ],
            "text_offset": offsets,
        }

    def _next(self, tokens: Sequence[TokenLogprob]) -> list[bytes | None]:
        first, self._begun = not self._begun, True
        return self._bytes.of_answer(tokens, first=first)

    def _likely(self, text: str, token_id: int, logprob: float) -> TopLogprob:
        own = self._bytes.of(token_id, text)
        return {"token": text, "logprob": max(logprob, LOWEST), "bytes": None if own is None else list(own)}

    def _name(self, text: str, token_id: int) -> str:
        """The token's text; its bytes where it is a part of a character, or two such tokens would be one key."""
        own = self._bytes.of(token_id, text)
        if own is None or own.decode("utf-8", "replace").encode() == own:
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)
