"""Errors of the HTTP API: one envelope that OpenAI clients and clients of the 2.5 release both read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "service_unavailable"}
RETRY_AFTER = 1
"""Seconds a client is asked to wait after 429 and 503: a place comes free as soon as any answer ends."""


class ApiError(Exception):
    """A request that is refused: the status, what is wrong in words, and the field of the body that is to blame."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        detail: Sequence[Mapping[str, Any]] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.detail = detail


def envelope(error: ApiError) -> dict[str, Any]:
    """The body of an error: `error` for OpenAI's clients, `message` and `detail` for those of the 2.5 release."""
    # A lone surrogate out of the client's own JSON cannot be written as UTF-8.
    message = error.message.encode("utf-8", "replace").decode()
    param = error.param and error.param.encode("utf-8", "replace").decode()
    body: dict[str, Any] = {
        "error": {
            "message": message,
            "type": _TYPES.get(error.status, "invalid_request_error"),
            "param": param,
            "code": error.code,
        },
        "object": "error",
        "message": message,
    }
    if error.detail is not None:
        body["detail"] = error.detail
    return body


def response(error: ApiError) -> JSONResponse:
    """The answer for `error`, with the headers its status calls for."""
    headers = {}
    if error.status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(envelope(error), status_code=error.status, headers=headers)


def unread_body(error: BaseException | None) -> ApiError:
    """For a body at which reading JSON failed otherwise than by its grammar."""
    reasons = {RecursionError: "it is nested too deeply", UnicodeDecodeError: "it is no UTF-8"}
    reason = next((why for kind, why in reasons.items() if isinstance(error, kind)), "it cannot be read")
    return ApiError(400, f"The body is not valid JSON: {reason}.", param="body", code="json_invalid")


def from_validation(errors: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """Pydantic's errors: 400 for text that is no JSON, 422 for JSON of the wrong shape. Repeats no value of `body`."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}.", param="body", code="json_invalid")
    detail = [{"loc": [_clean(part) for part in e["loc"]], "msg": e["msg"], "type": e["type"]} for e in errors]
    places = _meant([_Place.of(error, body) for error in errors])
    messages = dict.fromkeys(f"{place.path}: {place.message}" for place in places[:5])
    param = max((place for place in places if place.field == places[0].field), key=lambda place: place.depth).path
    return ApiError(422, f"{'; '.join(messages)}.", param=param, code=first["type"], detail=detail)


@dataclass(frozen=True)
class _Place:
    """Where an error stands in the body."""

    path: str
    """As `messages[0].role`."""
    field: str
    depth: int
    branch: tuple[Any, ...]
    """The place up to the first union, and which of its types was tried."""
    message: str

    @classmethod
    def of(cls, error: Mapping[str, Any], body: Any) -> _Place:
        """Pydantic's place also names the type of a union that it tried (`stop.constrained-str`), and marks a wrong key
        (`[key]`): what leads nowhere in the body and is no missing field is such a name."""
        parts = error["loc"][1:] if error["loc"][:1] == ("body",) else error["loc"]
        steps: list[str] = []
        branch: tuple[Any, ...] = ()
        value = body
        for place, part in enumerate(parts):
            if isinstance(part, int):
                value = value[part] if isinstance(value, list) and part < len(value) else None
                steps.append(f"[{part}]")
            elif isinstance(value, Mapping) and part in value:
                value = value[part]
                steps.append(f".{part}")
            elif place == len(parts) - 1 and error["type"] == "missing":
                steps.append(f".{part}")
            else:
                branch = branch or tuple(parts[: place + 1])
        path = "".join(steps).removeprefix(".") or "body"
        return cls(path, steps[0] if steps else "", len(steps), branch, error["msg"])


def _meant(places: Sequence[_Place]) -> Sequence[_Place]:
    """Of a union every type complains: the errors of those with the fewest are kept."""
    counts = Counter(place.branch for place in places)
    fewest: dict[tuple[Any, ...], int] = {}
    for branch, count in counts.items():
        if branch:
            fewest[branch[:-1]] = min(count, fewest.get(branch[:-1], count))
    return [place for place in places if not place.branch or counts[place.branch] == fewest[place.branch[:-1]]]


def _clean(part: Any) -> Any:
    return part.encode("utf-8", "replace").decode() if isinstance(part, str) else part
