"""Measures the cost of long prompts: `python -m tests.numerics.long_prompts --data-dir DIR`.

The model is the embedded one. For each length a line says how many CPU seconds of one thread lie between the
prompt and the first token, and how many CPU milliseconds each token after it takes. Other work on the machine
hardly changes CPU times.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from tokenizers import Tokenizer

from serac_gateway.models.language_models.base import Sampling
from serac_gateway.models.language_models.embedded_gemma import CONTEXT_TOKENS, converted_gemma

ROOT = Path(__file__).parents[2]
ANSWER_TOKENS = 40


def main() -> None:
    """Convert the model into the data folder if it is not there, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tokens", type=int, nargs="+", default=[600, 1_000, 3_000, 8_000, 16_000, 32_000])
    arguments = parser.parse_args()
    folder = converted_gemma(arguments.data_dir)
    import torch

    from serac_gateway.models.language_models.gemma3_torch import Gemma3

    torch.set_num_threads(1)
    model = Gemma3(folder, end_ids=())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode((ROOT / "LICENSE").read_text("utf-8") * 16, add_special_tokens=False).ids
    for tokens in arguments.tokens:
        prompt_ids = [2, *ids][: min(tokens, CONTEXT_TOKENS - ANSWER_TOKENS)]
        sampling = Sampling(max_tokens=ANSWER_TOKENS)
        begun_s = time.thread_time()
        answer = model.generate(prompt_ids, sampling, ANSWER_TOKENS, lambda: False)
        next(answer)
        first_s = time.thread_time()
        rest = sum(1 for _ in answer)
        ended_s = time.thread_time()
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
        print(
            f"{len(prompt_ids)} tokens: {first_s - begun_s:.1f} s to the first token,"
            f" {(ended_s - first_s) / rest * 1_000:.0f} ms for each of {rest} more, peak {peak_mib} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
