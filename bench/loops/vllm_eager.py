"""python vllm_eager.py MODEL_DIR NEW: vLLM on the CPU, eager, in the environment that `make test-vllm` builds.

Reads a JSON list of prompts (lists of token ids) a line, writes a JSON line with the seconds it took to continue them
all by NEW tokens, greedily. The first line it writes says that it is ready.
"""

import json
import os
import sys
import time

from vllm import LLM, SamplingParams, TokensPrompt  # pyright: ignore[reportMissingImports]  # installed apart


def main() -> None:
    """Answer prompts until the input ends."""
    # What vLLM prints goes to stderr; stdout is for the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    model, new = sys.argv[1], int(sys.argv[2])
    engine = LLM(model, dtype="float32", enforce_eager=True, max_model_len=1024, enable_prefix_caching=False)
    params = SamplingParams(max_tokens=new, min_tokens=new, temperature=0)
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in json.loads(line)]
        start = time.perf_counter()
        engine.generate(prompts, params, use_tqdm=False)
        print(json.dumps(time.perf_counter() - start), file=answers)


if __name__ == "__main__":
    main()
