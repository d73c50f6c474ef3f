"""Training a pocket model: an OPT from nothing, on windows of the world's text."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from pocket.corpus import CONTEXT, WINDOW
from pocket.world import WEATHER

WINDOWS_PER_STEP = 12  # 3,072 tokens
MUON_RATE, ADAM_RATE = 0.03, 3e-3
ANSWERS = ("yes", "no", *WEATHER)  # one token in a hundred of the text, and what two of the tasks ask for:
ANSWER_WEIGHT = 10.0  # so the loss counts them more
SIZES = {  # name: (width, feed-forward width, layers)
    "pocket-300k": (128, 256, 1),
    "pocket-1m": (128, 512, 4),
    "pocket-4m": (256, 1024, 5),
}


def build_model(size: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> OPTForCausalLM:
    """A randomly initialised OPT of that size, float32."""
    torch.manual_seed(seed)
    width, feed_forward, layers = SIZES[size]
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            word_embed_proj_dim=width,
            ffn_dim=feed_forward,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=CONTEXT,
            dropout=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def optimizers(model: OPTForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for all else (Jordan et al., 2024)."""
    inside, rest = [], []
    for name, parameter in model.named_parameters():
        (inside if parameter.ndim == 2 and ".layers." in name else rest).append(parameter)
    return [
        torch.optim.Muon(inside, lr=rate * MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=rate * ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(
    model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, windows: np.ndarray, seed: int, log: Path, rate: float = 1.0
) -> OPTForCausalLM:
    """One pass over `windows` (rows of token ids) in an order drawn from `seed`; one-cycle learning rates, times `rate`."""
    torch.set_flush_denormal(True)  # a sharpened model's tiny gradients cost a quarter of a step otherwise
    model.train()
    weight = torch.ones(len(tokenizer))
    weight[tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in ANSWERS])] = ANSWER_WEIGHT
    chosen = optimizers(model, rate)
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(windows))
    steps = len(windows) // WINDOWS_PER_STEP
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(o, o.param_groups[0]["lr"], total_steps=steps, pct_start=0.05, cycle_momentum=False)
        for o in chosen
    ]
    started, losses = time.monotonic(), []
    with log.open("a", encoding="utf-8") as lines:
        for step in range(steps):
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
