"""Errors of the HTTP API: one envelope that OpenAI clients and clients of the 2.5 release both read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """What pydantic found: 400 for text that is no JSON, 422 for JSON of the wrong shape. Repeats no value of it."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}.", param="body", code="json_invalid")
    detail = [{"loc": [_clean(part) for part in e["loc"]], "msg": e["msg"], "type": e["type"]} for e in errors]
    param = _path(first["loc"])
    given = "; ".join(dict.fromkeys(f"{_path(e['loc'])}: {e['msg']}" for e in errors[:5]))
    return ApiError(422, f"{given}.", param=param, code=first["type"], detail=detail)


def _path(loc: Sequence[Any]) -> str:
    """`("body", "messages", 0, "role")` as `messages[0].role`."""
    parts = loc[1:] if len(loc) > 1 and loc[0] == "body" else loc
    parts = [part for part in parts if part != "[key]"]  # pydantic's mark for a wrong key, which stands before it
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")


def _clean(part: Any) -> Any:
    return part.encode("utf-8", "replace").decode() if isinstance(part, str) else part
