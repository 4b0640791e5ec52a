"""python llamacpp.py MODEL.gguf NEW: llama.cpp by its wheel xllamacpp, in an environment of its own.

Reads a JSON list of prompts (lists of token ids) a line, writes a JSON line with the seconds it took to continue them
all at once by NEW tokens, greedily. The first line it writes says that it is ready.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp  # pyright: ignore[reportMissingImports]  # installed apart


def main() -> None:
    """Answer prompts until the input ends."""
    # What llama.cpp prints goes to stderr; stdout is for the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    model, new = sys.argv[1], int(sys.argv[2])
    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.n_parallel, settings.n_ctx, settings.cache_ram_mib, settings.verbosity = 16, 16 * 512, 0, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(
        os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1
    )
    server = xllamacpp.Server(settings)

    def answer(ids: list[int]) -> None:
        request: dict[str, Any] = {"prompt": ids, "n_predict": new, "temperature": 0}
        reply = server.handle_completions({**request, "ignore_eos": True, "cache_prompt": False})
        if reply["usage"]["completion_tokens"] != new:
            raise SystemExit(f"llama.cpp answered {reply}")

    print(json.dumps("ready"), file=answers)
    with ThreadPoolExecutor(16) as pool:
        for line in sys.stdin:
            start = time.perf_counter()
            list(pool.map(answer, json.loads(line)))
            print(json.dumps(time.perf_counter() - start), file=answers)


if __name__ == "__main__":
    main()
