"""What the server will be: where it listens, who may ask, under which names, how it answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.groups import Infer, Serve, Vllm
from swift.plan.infer import InferPlan, SamplingPlan


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How tokens are picked where a request does not say."""

    max_tokens: int | None = None
    """None: as many as the context holds."""
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    num_beams: int = 1
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class MediaPolicy:
    """Where media of requests may come from, besides the request itself and public addresses."""

    private_urls: bool = False
    """http(s) addresses of this machine and its own network."""
    folder: Path | None = None
    """Files on this machine, below this folder only; None: no files."""


@dataclass(frozen=True, kw_only=True)
class ServePlan:
    """Everything the HTTP surface needs besides an engine and an encoder."""

    model_name: str
    """The name of the base model; adapters are served under their own."""
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    owned_by: str = "swift"
    is_chat: bool = True
    media: MediaPolicy = field(default_factory=MediaPolicy)
    verbose: bool = False
    """Log every request with its text."""
    log_interval: int = 10
    """Seconds between statistics lines; 0 for none."""
    max_logprobs: int = 20
    max_in_flight: int = 512
    """Answers under way at once, queued ones included; past it a client gets 429."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins whose scripts may read answers (CORS)."""
    counts_every_chunk: bool = False
    """Whether streams carry token counts in every chunk unless the request says otherwise."""
    limit_tokens: bool = False
    """Whether `--max_new_tokens` was said, and so limits answers that ask for no limit."""
    first_seed: int | None = None
    """Of the first request that brings no seed; the next has the next one. None: each draws by itself."""

    def defaults(self, sampling: SamplingPlan) -> Defaults:
        """What a request that says nothing gets: the flags over the model's own generation config."""
        return Defaults(
            max_tokens=sampling.max_new_tokens if self.limit_tokens else None,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            length_penalty=sampling.length_penalty,
            num_beams=sampling.num_beams,
            stop=sampling.stop_words,
        )


def plan_serve(args: Args, infer: InferPlan, *, is_chat: bool) -> ServePlan:
    """Decide the HTTP side of `swift deploy`. Raises SwiftError when only half of a TLS certificate is given."""
    serve = args[Serve]
    if (serve.ssl_keyfile is None) != (serve.ssl_certfile is None):
        missing = "--ssl_keyfile" if serve.ssl_keyfile is None else "--ssl_certfile"
        raise SwiftError("TLS needs a key and a certificate", where=missing, next=f"add {missing} FILE")
    if serve.api_key == "":
        raise SwiftError("the API key is empty", where="--api_key", next="leave it out to serve without a key")
    return ServePlan(
        model_name=serve.served_model_name or infer.model.model_type,
        host=serve.host,
        port=serve.port,
        api_key=serve.api_key,
        ssl_keyfile=serve.ssl_keyfile,
        ssl_certfile=serve.ssl_certfile,
        owned_by=serve.owned_by,
        is_chat=is_chat,
        media=MediaPolicy(serve.allow_private_urls, _folder(serve.allowed_media_dir)),
        verbose=bool(args[Infer].verbose),
        log_interval=serve.log_interval,
        max_logprobs=args[Infer].max_logprobs,
        # As many again may wait as an engine runs at once.
        max_in_flight=2 * args[Vllm].max_num_seqs,
        allowed_origins=serve.allowed_origins,
        counts_every_chunk=serve.stream_usage == "every",
        limit_tokens=args.is_explicit("max_new_tokens"),
        first_seed=infer.first_seed,
    )


def _folder(given: str | None) -> Path | None:
    if given is None:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise SwiftError(f"{given} is no folder", where="--allowed_media_dir", next="name the folder with the media")
    return folder
