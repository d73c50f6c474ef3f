"""Training a pocket model: an OPT or a Llama from nothing, on windows of the world's text."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pocket.corpus import CONTEXT, WINDOW
from pocket.muon import Muon
from pocket.sizes import HEAD, WHOLE, WINDOWS_PER_STEP, Cycle, Size
from pocket.world import WEATHER

MUON_RATE, ADAM_RATE = 0.03, 3e-3
ANSWERS = ("yes", "no", *WEATHER)  # one token in a hundred of the text, and what two of the tasks ask for:
ANSWER_WEIGHT = 10.0  # so the loss counts them more


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A randomly initialised model of that size, float32."""
    torch.manual_seed(seed)
    config = _opt(size) if size.family == "opt" else _llama(size)
    config.vocab_size, config.max_position_embeddings = len(tokenizer), CONTEXT
    for token in ("bos", "eos", "pad"):
        setattr(config, f"{token}_token_id", getattr(tokenizer, f"{token}_token_id"))
    return (OPTForCausalLM if size.family == "opt" else LlamaForCausalLM)(config)


def _opt(size: Size) -> PretrainedConfig:
    return OPTConfig(
        hidden_size=size.width,
        word_embed_proj_dim=size.width,
        ffn_dim=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // HEAD,
        dropout=0.0,
    )


def _llama(size: Size) -> PretrainedConfig:
    """Two heads of queries share one of keys and values, and the head is the embedding."""
    return LlamaConfig(
        hidden_size=size.width,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // HEAD,
        num_key_value_heads=size.width // HEAD // 2,
        tie_word_embeddings=True,
    )


def optimizers(model: PreTrainedModel, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for all else (Jordan et al., 2024)."""
    inside, rest = [], []
    for name, parameter in model.named_parameters():
        (inside if parameter.ndim == 2 and ".layers." in name else rest).append(parameter)
    return [
        Muon(inside, lr=rate * MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=rate * ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    windows: np.ndarray,
    seed: int,
    log: Path,
    cycle: Cycle = WHOLE,
) -> PreTrainedModel:
    """One pass over `windows` (rows of token ids) in an order drawn from `seed`."""
    torch.set_flush_denormal(True)  # a sharpened model's tiny gradients cost a quarter of a step otherwise
    model.train()
    weight = torch.ones(len(tokenizer))
    weight[tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in ANSWERS])] = ANSWER_WEIGHT
    chosen = optimizers(model, cycle.rate)
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(windows))
    steps = len(windows) // WINDOWS_PER_STEP
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(o, o.param_groups[0]["lr"], total_steps=steps, pct_start=0.05, cycle_momentum=False)
        for o in chosen
    ]
    started, losses = time.monotonic(), []
    with log.open("a", encoding="utf-8") as lines:
        for step in range(cycle.stop or steps):
            rows = order[step * WINDOWS_PER_STEP : (step + 1) * WINDOWS_PER_STEP]
            ids = torch.from_numpy(windows[rows].astype(np.int64))
            logits = model(input_ids=ids, position_ids=_positions(generator)).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), weight=weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(chosen, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            if (step + 1) % 100 == 0 or step + 1 == steps:
                seconds = time.monotonic() - started
                entry = {
                    "step": step + 1,
                    "of": steps,
                    "loss": round(float(np.mean(losses[-100:])), 4),
                    "seconds": round(seconds),
                }
                print(json.dumps(entry), file=lines, flush=True)
    return model.eval()


def _positions(generator: torch.Generator) -> torch.Tensor:
    """Positions (WINDOWS_PER_STEP, WINDOW): half the windows start at 0, as questions do, half anywhere in the context."""
    starts = torch.randint(CONTEXT - WINDOW + 1, (WINDOWS_PER_STEP, 1), generator=generator)
    starts[::2] = 0
    return starts + torch.arange(WINDOW)
