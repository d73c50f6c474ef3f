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

from pocket.corpus import CONTEXT, END
from pocket.muon import Muon
from pocket.sizes import HEAD, WHOLE, Cycle, Size
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
        cycle: The learning rates, what a step is and counts, and where the pass ends.
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
        self.per_step, self.steps = cycle.per_step, len(windows) // cycle.per_step
        self.weight = torch.ones(len(tokenizer))
        self.weight[tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in ANSWERS])] = ANSWER_WEIGHT
        begin, ends = "Answer", ("Ċ", END)
        self.answers = tokenizer.convert_tokens_to_ids([begin, *ends]) if cycle.weighs_answers else None
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
        rows = self.order[self.step * self.per_step : (self.step + 1) * self.per_step]
        ids = torch.from_numpy(self.windows[rows].astype(np.int64))
        logits = self.model(input_ids=ids, position_ids=self._positions()).logits[:, :-1].flatten(0, 1)
        losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        weights = self.weight[ids] if self.answers is None else self._answer_weights(ids)
        weights = weights[:, 1:].flatten()
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.losses.append(loss.item())
        self.step += 1

    def _positions(self) -> torch.Tensor:
        """Positions, as many as ids: half the windows start at 0, as questions do, half anywhere in the context."""
        window = self.windows.shape[1]
        starts = torch.randint(CONTEXT - window + 1, (self.per_step, 1), generator=self.generator)
        starts[::2] = 0
        return starts + torch.arange(window)

    def _answer_weights(self, ids: torch.Tensor) -> torch.Tensor:
        """ANSWER_WEIGHT from `Answer` and a colon to the end of the line, 1 elsewhere; of the shape of ids.

        The first token counts only if it is the whole answer: before a word stands the name that was asked for.
        """
        begin, *ends = self.answers
        place = torch.arange(ids.shape[1])
        is_end = torch.isin(ids, torch.tensor(ends))
        begun = torch.where(ids == begin, place, -1).cummax(1).values
        ended = torch.where(is_end, place, -1).cummax(1).values
        counts = (place > begun + 2) | ((place == begun + 2) & is_end.roll(-1, 1))
        return torch.where((begun > ended) & counts, ANSWER_WEIGHT, 1.0)

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
