"""A real llama.cpp on the CPU: what it makes of a GGUF file."""

from __future__ import annotations

from pathlib import Path


def token_logprobs(path: Path, ids: list[int], vocabulary: int, plain: int) -> list[float]:
    """Return the log-probability of each token but the first, given those before it, in nats.

    `vocabulary` is the number of tokens; `plain` is one whose text is a letter, because llama.cpp says nothing of an answer
    that is no whole character. Forcing it does not change the log-probabilities, which are those before sampling.
    """
    server = _server(path)
    rows = []
    for place in range(1, len(ids)):
        asked = {"prompt": ids[:place], "n_predict": 1, "logprobs": vocabulary, "logit_bias": [[plain, 1000.0]]}
        answer = server.handle_completions(asked)
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        rows.append({token["id"]: token["logprob"] for token in top}[ids[place]])
    return rows


def count_tokens(path: Path, texts: list[str]) -> list[int]:
    """Return the number of tokens of each text."""
    server = _server(path)
    asked = [{"prompt": text, "n_predict": 1} for text in texts]
    return [server.handle_completions(each)["usage"]["prompt_tokens"] for each in asked]


def _server(path: Path):
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 256, 1, False, -1
    settings.cpuparams.n_threads = 1
    # Otherwise llama.cpp keeps keys and values in half precision.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(settings)
