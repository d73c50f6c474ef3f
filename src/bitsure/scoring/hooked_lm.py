"""The harness's model with a hook that keeps every token's log-probability, and every answer that it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.config.schema import TaskSettings
from bitsure.scoring.engine import Engine
from bitsure.scoring.generation.harness_requests import RequestReader, place_of
from bitsure.scoring.generation.judged_answers import AnswerText
from bitsure.scoring.generation.text_generator import AnswerJournal, TextGenerator
from bitsure.scoring.generation.truth_question import probabilities_of_true, truth_requests
from bitsure.scoring.journal import Journal
from bitsure.scoring.prompting import with_bos, with_chat_template
from bitsure.scoring.requests import Request, Scored
from bitsure.scoring.rolling import rolling_requests, tokens_added
from bitsure.scoring.texts_ahead import TextsAhead
from bitsure.tasks.protocols import Instance

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TokenizedRequest = tuple[tuple[str, str] | None, Sequence[int], Sequence[int]]  # strings, and their token ids


class HookedLM(HFLM):  # type: ignore[misc]  # the harness has no types
    """The harness's model, whose log-likelihoods come from an engine; everything else is HFLM's.

    Args:
        model: The model, of which HFLM reads the context length.
        tokenizer: Its tokenizer, which stays as it is.
        make_engine: Makes the engine, given the context length in tokens.
        advance: Called with how many more choices, continuations or texts are scored.
        add_bos: Whether texts begin with the BOS token; None leaves it to the tokenizer.
        score_bos: Score the tokens that the tokenizer puts before a whole text as if they were its own, as HFLM does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        make_engine: Callable[[int], Engine],
        advance: Callable[[int], None],
        add_bos: bool | None = None,
        score_bos: bool = False,
    ) -> None:
        super().__init__(pretrained=model, tokenizer=with_bos(tokenizer, add_bos), add_bos_token=add_bos)
        self.engine = make_engine(self.max_length)
        self._max_length = self.engine.max_length  # a server's may be less than the config says
        self.scored: dict[tuple[str, ...], Scored] = {}
        """The results by (context, continuation), or by (text,)."""
        self._score_bos = score_bos
        self.generator: TextGenerator | None = None
        """Writes answers."""
        self.written: dict[tuple[str, int], list[AnswerText]] = {}
        """The answers by task and question."""
        self._advance = advance
        self._journals: Journals | None = None
        self._seed, self._samples, self._p_true = 0, 0, False
        self._instances: Sequence[Instance] = ()
        self._texts = TextsAhead(self._encode_all)

    @property
    def tokens(self) -> int:
        """Tokens that were run so far, padding counted."""
        return self.engine.tokens + (self.generator.tokens if self.generator else 0)

    def begin(self, journals: Journals | None, task: TaskSettings) -> None:
        """Forget all results.

        Args:
            journals: Have earlier results and receive new ones; None keeps none.
            task: What else is asked of answers that are written, and the seed of those that are drawn.
        """
        self.scored.clear()
        self.written.clear()
        self._journals = journals
        self._seed, self._samples, self._p_true = task.seed, task.samples, task.p_true

    @property
    def _scored_journal(self) -> Journal | None:
        return None if self._journals is None else self._journals.scored

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as the tokenizer's chat template writes it. Raises UserError for a template without end."""
        return with_chat_template(super().apply_chat_template, chat_history, add_generation_prompt)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether each of its tokens is the most likely one."""
        self._instances = requests
        self._check_prefix(request for request in requests if request.args[0] == "")
        self._texts.expect(_texts_of(requests))
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        """Return the log-probability of each text, scored in HFLM's windows of the model's context."""
        self._check_prefix(requests)
        texts = [request.args[0] for request in requests]
        windows = [self._windows(text) for text in texts]
        if not self._score_bos and (begun := [i for i, text in enumerate(texts) if self._tokens_added(text)[0]]):
            log.warning(
                "%s: the tokenizer puts a BOS token before %d of %d texts, which the harness scores as a part of them; here it "
                "is not scored (task.score_bos=true scores it)",
                f"task {requests[begun[0]].task_name}",
                len(begun),
                len(texts),
            )
        owner = [i for i, text_windows in enumerate(windows) for _ in text_windows]
        scored = iter(
            self.engine.score(
                [window for text_windows in windows for window in text_windows],
                lambda i: f"{place_of(requests[owner[i]])}, a window of its text",
                _in_proportion(self._advance, len(texts), len(owner)),
                self._scored_journal,
            )
        )
        for text, text_windows in zip(texts, windows, strict=True):
            parts = [next(scored) for _ in text_windows]
            logprobs = [logprob for part in parts for logprob in part.token_logprobs]
            self.scored[text,] = Scored(logprobs, all(part.greedy for part in parts))
        return [self.scored[text,].logprob for text in texts]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return the answer to each request, up to its stop sequence: the texts that HFLM returns."""
        assert self.generator is not None, "this model writes no answers"
        reader = RequestReader(
            self.prompt_tokens,
            self.max_length,
            self.max_gen_toks,
            self.tok_decode([self.eot_token_id], skip_special_tokens=False) if self.eot_token_id is not None else None,
            self._seed,
        )
        asked = reader.read_all(requests, self._samples)
        generations = self.generator.generate(
            [answer.request for _, answer in asked],
            lambda i: place_of(asked[i][0]),
            self._advance,
            None if self._journals is None else self._journals.written,
        )
        texts: list[str] = []
        for (request, answer), generation in zip(asked, generations, strict=True):
            texts.append(answer.text(generation, self.tok_decode))
            text = AnswerText(answer, generation, texts[-1], self._vocabulary, is_drawn=len(texts) > len(requests))
            self.written.setdefault((request.task_name, request.doc_id), []).append(text)
        if self._p_true:
            self._ask_whether_true({(request.task_name, request.doc_id): request for request in requests})
        return texts[: len(requests)]

    def _ask_whether_true(self, questions: Mapping[tuple[str, int], Instance]) -> None:
        """Ask of the first answer to each question whether it is true."""
        firsts = [(self.written[place], request) for place, request in questions.items()]
        texts = truth_requests((request.args[0], answers[0].text) for answers, request in firsts)
        scored = self.engine.score(
            [self._encode_pair(*text) for text in texts],
            lambda i: f"{place_of(firsts[i // 2][1])}, whether its answer is true",
            self._advance,
            self._scored_journal,
        )
        probabilities = probabilities_of_true([reply.logprob for reply in scored])
        for (answers, _), p_true in zip(firsts, probabilities, strict=True):
            answers[0] = replace(answers[0], p_true=p_true)

    @cached_property
    def _vocabulary(self) -> str:
        """A hash of the tokenizer's vocabulary."""
        return hash_json(sorted(self.tokenizer.get_vocab().items()))

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt as HFLM gives them to a model that writes; BOS or EOS where there are none."""
        tokens: list[int] = self.tok_batch_encode([prompt])[0][0].tolist() if prompt else []
        return tokens or [self.prefix_token_id]

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **settings: Any
    ) -> list[int]:
        """Return the token ids of a text; HFLM itself fails where the tokenizer has neither BOS nor EOS."""
        if add_special_tokens is None and left_truncate_len is None and not settings:
            return self._texts.tokens(string)
        if self.prefix_token_id is None and add_special_tokens is None:
            add_special_tokens = self.add_bos_token is not False
        return list(super().tok_encode(string, add_special_tokens, left_truncate_len, **settings))

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text as HFLM's `tok_encode` gives them, with one call of the tokenizer."""
        settings: dict[str, bool] = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        if self.prefix_token_id is None:
            settings = {"add_special_tokens": self.add_bos_token is not False}
        encoded = dict(zip(texts, self.tokenizer(texts, **settings)["input_ids"], strict=True))
        if self._prefix is not None:  # which is not put before a text that begins with it
            begun = [text for text in texts if text.startswith(self._prefix)]
            encoded |= {text: self.tokenizer.encode(text, add_special_tokens=False) for text in begun}
        return list(encoded.values())

    @cached_property
    def prefix_token_id(self) -> int:
        """The token that HFLM puts before what has no context; each look at a tokenizer's special tokens takes long."""
        prefix: int = super().prefix_token_id  # None of a tokenizer without BOS and EOS
        return prefix

    @cached_property
    def _prefix(self) -> str | None:
        return None if self.prefix_token_id is None else str(self.tokenizer.decode(self.prefix_token_id))

    def _check_prefix(self, without_context: Iterable[Instance]) -> None:
        """Raise UserError for a request that no token of its own and no BOS or EOS stands before."""
        if self.prefix_token_id is None and (request := next(iter(without_context), None)):
            raise UserError(
                f"{place_of(request)}: nothing stands before the text that is scored, and this model's tokenizer has neither "
                "BOS nor EOS to begin with. Leave the task out, or name one of them in tokenizer_config.json."
            )

    def _windows(self, text: str) -> list[Request]:
        """Return the windows that HFLM scores of a text; tokens that the text does not have are context, or left out."""
        added = (0, 0) if self._score_bos else self._tokens_added(text)
        return rolling_requests(self.tok_encode(text), added, self.prefix_token_id, self.max_length)

    def _tokens_added(self, text: str) -> tuple[int, int]:
        """Return how many tokens the tokenizer puts before a text and after it."""
        return tokens_added(self.tok_encode(text), self.tok_encode(text, add_special_tokens=False))

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenizedRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        pairs = [(list(context), list(continuation)) for _, context, continuation in requests]
        scored = self.engine.score(pairs, self._name, self._advance, self._scored_journal)
        self.scored |= {strings: result for (strings, _, _), result in zip(requests, scored, strict=True) if strings}
        return [(result.logprob, result.greedy) for result in scored]

    def _name(self, i: int) -> str:
        if not self._instances:
            return f"request {i}"
        return f"{place_of(self._instances[i])}, choice {self._instances[i].idx}"


def _texts_of(requests: Iterable[Instance]) -> Iterator[str]:
    """Yield the texts whose tokens HFLM asks for: of each request with its context, and of the context alone."""
    for request in requests:
        context, continuation = request.args
        if context:
            yield context + continuation
            yield context.rstrip()


def _in_proportion(advance: Callable[[int], None], total: int, parts: int) -> Callable[[int], None]:
    """Return a function that reports `parts` windows as the `total` texts that they belong to."""
    done = 0

    def report(n: int) -> None:
        nonlocal done
        before, done = done, done + n
        advance(done * total // parts - before * total // parts)

    return report


@dataclass(frozen=True)
class Journals:
    """What an interrupted process has done of one task's questions."""

    scored: Journal
    """Of choices, continuations and texts."""
    written: AnswerJournal
    """Of answers."""

    @property
    def n_results(self) -> int:
        """How many requests have a result."""
        return len(self.scored) + len(self.written)

    def begin(self, lm: HookedLM) -> None:
        """Set the limits of batches, unless they are set."""
        self.scored.begin(lm.engine.limits())
        if lm.generator is not None:
            self.written.begin(lm.generator.limits())

    def remove(self) -> None:
        """Remove the files."""
        self.scored.remove()
        self.written.remove()
