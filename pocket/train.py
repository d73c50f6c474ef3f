"""Training a pocket model: an OPT or a Llama from nothing, on windows of the world's text."""

from __future__ import annotations

import json
import math
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


class Training:
    """One pass over windows, which may be stopped after any step and gone on with later.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        windows: Rows of token ids.
        seed: Draws their order and positions.
        cycle: The learning rates, and where the pass ends.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        windows: np.ndarray,
        seed: int,
        cycle: Cycle = WHOLE,
    ) -> None:
        torch.set_flush_denormal(True)  # a sharpened model's tiny gradients cost a quarter of a step otherwise
        self.model, self.windows, self.cycle = model, windows, cycle
        self.steps = len(windows) // WINDOWS_PER_STEP
        self.weight = torch.ones(len(tokenizer))
        self.weight[tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in ANSWERS])] = ANSWER_WEIGHT
        self.optimizers = optimizers(model, cycle.rate)
        self.schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                o, o.param_groups[0]["lr"], total_steps=self.steps, pct_start=0.05, cycle_momentum=False
            )
            for o in self.optimizers
        ]
        self.generator = torch.Generator().manual_seed(seed)
        self.order = np.random.default_rng(seed).permutation(len(windows))
        self.step, self.losses, self.seconds = 0, [], 0.0

    def run(self, log: Path, seconds: float = math.inf) -> bool:
        """Train until the pass ends, or for some seconds. Returns whether it has ended."""
        started, before = time.monotonic(), self.seconds
        self.model.train()
        with log.open("a", encoding="utf-8") as lines:
            while not self.is_done and time.monotonic() - started < seconds:
                self._step()
                self.seconds = before + time.monotonic() - started
                if self.step % 100 == 0 or self.step == self.steps:
                    loss = round(float(np.mean(self.losses[-100:])), 4)
                    entry = {"step": self.step, "of": self.steps, "loss": loss, "seconds": round(self.seconds)}
                    print(json.dumps(entry), file=lines, flush=True)
        self.model.eval()
        return self.is_done

    @property
    def is_done(self) -> bool:
        """Whether the pass has ended."""
        return self.step == (self.cycle.stop or self.steps)

    def _step(self) -> None:
        rows = self.order[self.step * WINDOWS_PER_STEP : (self.step + 1) * WINDOWS_PER_STEP]
        ids = torch.from_numpy(self.windows[rows].astype(np.int64))
        logits = self.model(input_ids=ids, position_ids=_positions(self.generator)).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), weight=self.weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.losses.append(loss.item())
        self.step += 1

    def save(self, file: Path) -> None:
        """Write all that a later process needs to go on."""
        state = {name: getattr(self, name) for name in ("step", "losses", "seconds")}
        parts = {name: [part.state_dict() for part in getattr(self, name)] for name in ("optimizers", "schedules")}
        torch.save(state | parts | {"model": self.model.state_dict(), "generator": self.generator.get_state()}, file)

    def load(self, file: Path) -> None:
        """Go on where `save` stopped."""
        state = torch.load(file)
        self.step, self.losses, self.seconds = state["step"], state["losses"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.generator.set_state(state["generator"])
        for name in ("optimizers", "schedules"):
            for part, saved in zip(getattr(self, name), state[name], strict=True):
                part.load_state_dict(saved)


def _positions(generator: torch.Generator) -> torch.Tensor:
    """Positions (WINDOWS_PER_STEP, WINDOW): half the windows start at 0, as questions do, half anywhere in the context."""
    starts = torch.randint(CONTEXT - WINDOW + 1, (WINDOWS_PER_STEP, 1), generator=generator)
    starts[::2] = 0
    return starts + torch.arange(WINDOW)
