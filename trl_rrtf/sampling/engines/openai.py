"""The `openai` engine: any endpoint that speaks OpenAI's protocol (OpenAI, vLLM's server, llama.cpp's, and many others)."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

from trl_rrtf.errors import ConfigError, LoadError
from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines.options import OpenAIOptions


class OpenAISampler:
    """Samples from an endpoint: one request per candidate, with the candidate's own seed, many at once.

    A request that fails for a passing reason (too many requests, a server error, no connection) is repeated with growing
    pauses, or after the time that the server names. The key is read from an environment variable, and stored nowhere.

    Args:
        model: What the endpoint calls it.
        options: The endpoint, and how it is asked.

    Raises:
        ConfigError: The package `openai` or the key is missing.
    """

    def __init__(self, model: str, options: OpenAIOptions) -> None:
        if importlib.util.find_spec("openai") is None:
            raise ConfigError("`engine`: openai needs the package openai; install `trl-rrtf[openai]`")
        import openai

        key = os.environ.get(options.api_key_env)
        if not key and options.base_url is None:
            raise ConfigError(f"`api_key_env`: the environment variable {options.api_key_env} is not set; set it to your key")
        self._model, self._options = model, options
        self._client = openai.OpenAI(
            api_key=key or "none",  # a server of one's own wants none
            base_url=options.base_url,
            max_retries=options.max_retries,
            timeout=options.request_timeout,
        )
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._usage = {"requests": 0, "retries": 0, "prompt tokens": 0, "completion tokens": 0}

    def sample(self, prompts: Sequence[str | Messages], draws: Draws) -> list[list[str]]:
        """Draws texts, see [`Sampler.sample`][trl_rrtf.sampling.draws.Sampler.sample].

        Raises:
            LoadError: A request failed for good.
        """
        texts = dict(self.stream(prompts, draws))
        return [texts[index] for index in range(len(prompts))]

    def stream(self, prompts: Sequence[str | Messages], draws: Draws) -> Iterator[tuple[int, list[str]]]:
        """Yields (index of the prompt, its texts) as each prompt is answered.

        Raises:
            LoadError: A request failed for good; raised after all prompts that were answered have been yielded.
        """
        with ThreadPoolExecutor(self._options.max_concurrency) as pool:
            of_prompt: list[list[Future[str]]] = [
                [pool.submit(self._ask, prompt, seed, draws) for seed in own]
                for prompt, own in zip(prompts, draws.seeds, strict=True)
            ]
            waiting = dict(enumerate(of_prompt))
            try:
                for _ in as_completed([future for futures in of_prompt for future in futures]):
                    answered = [index for index, futures in waiting.items() if all(future.done() for future in futures)]
                    for index in answered:
                        if all(future.exception() is None for future in waiting[index]):
                            yield index, [future.result() for future in waiting.pop(index)]
                    if failed := [future for futures in waiting.values() for future in futures if _has_failed(future)]:
                        yield from self._rest(waiting)
                        raise self._explained(failed[0].exception())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _rest(self, waiting: dict[int, list[Future[str]]]) -> Iterator[tuple[int, list[str]]]:
        """After a failure: no further prompt is begun; those that are begun, and paid in part, are asked to their end."""
        for futures in waiting.values():
            if futures[0].cancel() or any(map(_has_failed, futures)):
                for future in futures:
                    future.cancel()
        for index, futures in waiting.items():
            wait([future for future in futures if not future.cancelled()], return_when=FIRST_EXCEPTION)
            if any(map(_has_failed, futures)):
                for future in futures:
                    future.cancel()
            elif not futures[0].cancelled():
                yield index, [future.result() for future in futures]
        wait([future for futures in waiting.values() for future in futures if not future.cancelled()])

    def usage(self) -> dict[str, int | float]:
        """Requests, retries and tokens so far, and the cost where prices were given."""
        usage: dict[str, int | float] = dict(self._usage)
        if self._options.input_price or self._options.output_price:
            prompt_cost = self._usage["prompt tokens"] * self._options.input_price
            usage["cost"] = round((prompt_cost + self._usage["completion tokens"] * self._options.output_price) / 1e6, 6)
        return usage

    def _ask(self, prompt: str | Messages, seed: int, draws: Draws) -> str:
        self._wait_for_turn()
        request: dict[str, Any] = {
            "model": self._model,
            "seed": seed,
            "temperature": draws.temperature,
            "top_p": draws.top_p,
            "max_tokens": draws.max_new_tokens,
        }
        if draws.stop_strings:
            request["stop"] = list(draws.stop_strings)
        if draws.top_k:  # not OpenAI's own; vLLM and others know it
            request["extra_body"] = {"top_k": draws.top_k}
        if isinstance(prompt, str):
            response = self._client.completions.with_raw_response.create(prompt=prompt, **request)
        else:
            messages: Any = prompt
            response = self._client.chat.completions.with_raw_response.create(messages=messages, **request)
        answer: Any = response.parse()
        with self._lock:
            self._usage["requests"] += 1
            self._usage["retries"] += response.retries_taken
            if answer.usage is not None:
                self._usage["prompt tokens"] += answer.usage.prompt_tokens
                self._usage["completion tokens"] += answer.usage.completion_tokens
        [choice] = answer.choices
        return str((choice.text if isinstance(prompt, str) else choice.message.content) or "")

    def _wait_for_turn(self) -> None:
        """Requests start evenly spaced, so that no minute has more of them than allowed."""
        if not self._options.requests_per_minute:
            return
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + 60 / self._options.requests_per_minute
        time.sleep(max(0.0, start - time.monotonic()))

    def _explained(self, error: BaseException | None) -> Exception:
        import openai

        options = self._options
        where = options.base_url or "the default endpoint"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return LoadError(f"`api_key_env`: {where} refused the key in {options.api_key_env}; check the key")
        if isinstance(error, openai.NotFoundError):
            return LoadError(f"`model`: {where} has no {self._model!r}; check the name and `base_url` (it often ends in /v1)")
        if isinstance(error, openai.APIConnectionError):
            return LoadError(f"`base_url`: {where} cannot be reached ({error}); check the address, or start the server")
        return LoadError(f"{where} failed after {options.max_retries} retries ({error}); what was answered is kept: run again")


def _has_failed(future: Future[str]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None
