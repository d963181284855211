"""The endpoint engine against a real HTTP server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trl_rrtf import CandidateGroup, ConfigError, LoadError, SamplingConfig
from trl_rrtf.rows.files import read_rows
from trl_rrtf.sampling import Draws, SampleArguments, make_sampler, run_sample

pytest.importorskip("openai")
CHAT = [[{"role": "user", "content": f"number {i}"}] for i in range(3)]


def draws(seeds, **options):
    return Draws(seeds=seeds, **{"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 16, **options})


class Endpoint(ThreadingHTTPServer):
    """Answers with the prompt and the seed; `failures` are answered first: (status, headers) each."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.times, self.failures, self.keys = [], [], [], set()
        self.delay, self.now, self.most, self.broken_prompt = 0.0, 0, 0, None
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append((self.path, body))
            server.times.append(time.monotonic())
            server.keys.add(self.headers["Authorization"])
            server.now += 1
            server.most = max(server.most, server.now)
            failure = server.failures.pop(0) if server.failures else None
        time.sleep(server.delay)
        with server.lock:
            server.now -= 1
        chat = self.path == "/v1/chat/completions"
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        if failure is None and server.broken_prompt == prompt:
            failure = (400, {})
        if failure:
            return self.answer(failure[0], {"error": {"message": "no"}}, failure[1])
        text = f"{prompt}, seed {body['seed']}"
        choice = {"index": 0, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return self.answer(
            200, {"id": "x", "object": "x", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}
        )

    def answer(self, status, value, headers=None):
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, header in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, header)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def endpoint():
    server = Endpoint()
    yield server
    server.shutdown()
    server.server_close()


def sampler(endpoint, **options):
    return make_sampler(config(endpoint, **options))


def config(endpoint, **options):
    return SamplingConfig("coder", engine="openai", base_url=endpoint.address, **{"num_generations": 2, **options})


def test_every_candidate_has_its_seed_and_its_place(endpoint):
    endpoint.delay = 0.01
    texts = sampler(endpoint).sample(CHAT, draws([[1, 2], [3, 4], [5, 6]]))
    assert texts == [[f"number {i}, seed {2 * i + j}" for j in (1, 2)] for i in range(3)]
    path, body = endpoint.bodies[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("coder", 0.8, 0.95, 16)
    assert not {"stop", "top_k"} & set(body)


def test_text_prompts_are_completed_and_options_passed(endpoint):
    texts = sampler(endpoint).sample(["def f():"], draws([[7]], stop_strings=["\n\n"], top_k=5))
    assert texts == [["def f():, seed 7"]]
    path, body = endpoint.bodies[0]
    assert (path, body["stop"], body["top_k"]) == ("/v1/completions", ["\n\n"], 5)


def test_failures_that_pass_are_repeated_and_counted(endpoint):
    endpoint.failures = [(429, {"Retry-After": "0.2"}), (500, {"Retry-After": "0.1"})]
    engine = sampler(endpoint, max_concurrency=1, input_price=1.0, output_price=3.0)
    started = time.monotonic()
    assert engine.sample(CHAT[:1], draws([[1]])) == [["number 0, seed 1"]]
    assert time.monotonic() - started >= 0.25, "the server's pauses are kept"
    assert engine.usage() == {"requests": 1, "retries": 2, "prompt tokens": 10, "completion tokens": 5, "cost": 0.000025}


@pytest.mark.parametrize(
    ("status", "message"), [(401, "`api_key_env`: .* refused the key"), (404, "`model`: .* has no 'coder'"), (500, "run again")]
)
def test_failures_that_last_say_what_to_do(endpoint, status, message):
    endpoint.failures = [(status, {"Retry-After": "0.01"})] * 50
    with pytest.raises(LoadError, match=message):
        sampler(endpoint, max_retries=1).sample(CHAT, draws([[1]] * 3))


def test_a_server_that_is_not_there_is_named(endpoint):
    settings = replace(config(endpoint, max_retries=0), base_url="http://127.0.0.1:9/v1")
    with pytest.raises(LoadError, match=r"`base_url`: http://127.0.0.1:9/v1 cannot be reached"):
        make_sampler(settings).sample(CHAT[:1], draws([[1]]))


def test_no_more_requests_at_once_than_allowed(endpoint):
    endpoint.delay = 0.05
    sampler(endpoint, max_concurrency=3).sample(CHAT, draws([range(4)] * 3))
    assert endpoint.most == 3


def test_no_more_requests_in_a_minute_than_allowed(endpoint):
    sampler(endpoint, requests_per_minute=1200).sample(CHAT, draws([[1, 2]] * 3))
    assert endpoint.times[-1] - endpoint.times[0] >= 0.9 * 5 * 60 / 1200


def test_the_key_comes_from_the_environment_alone(endpoint, monkeypatch):
    monkeypatch.setenv("CODER_KEY", "s3cret")
    engine = sampler(endpoint, api_key_env="CODER_KEY")
    engine.sample(CHAT[:1], draws([[1]]))
    assert endpoint.keys == {"Bearer s3cret"}
    assert "s3cret" not in repr(engine._options)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="`api_key_env`: the environment variable OPENAI_API_KEY is not set"):
        make_sampler(SamplingConfig("gpt", engine="openai"))
    with pytest.raises(ConfigError, match="`base_url`: is for the engine openai, and `engine` is 'transformers'"):
        SamplingConfig("m", base_url=endpoint.address)


def test_what_was_answered_is_kept_when_a_request_fails_for_good(endpoint, tmp_path):
    problems = tmp_path / "p.jsonl"
    rows = [
        {"problem_id": f"p/{i}", "prompt": f"number {i}", "tests": [{"kind": "assert", "code": "assert True"}]}
        for i in range(8)
    ]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = SampleArguments(str(problems), str(tmp_path / "c.jsonl"))
    settings = config(endpoint, prompt_style="completion", source="teacher", max_concurrency=1, max_retries=0)
    endpoint.broken_prompt = "number 5"
    with pytest.raises(LoadError, match="what was answered is kept"):
        run_sample(arguments, settings)
    endpoint.broken_prompt = None
    summary = run_sample(arguments, replace(settings, max_concurrency=4))
    answered = [(body["prompt"], body["seed"]) for _, body in endpoint.bodies]
    assert len(answered) <= len(set(answered)) + 2, "at most the failed problem is asked again"
    assert summary.usage["coder"]["requests"] == summary.sampled_now < 16
    assert summary.table()["usage of coder"] == summary.usage["coder"]
    groups = read_rows(tmp_path / "c.jsonl", CandidateGroup)
    assert [group.candidates[0].raw.split(",")[0] for group in groups] == [row["prompt"] for row in rows]
    assert {candidate.model for group in groups for candidate in group.candidates} == {"coder"}


def test_a_prompt_that_was_answered_in_part_when_another_failed_is_answered_whole(endpoint):
    endpoint.delay, endpoint.broken_prompt = 0.05, "number 0"
    answered = []

    def collect(stream):
        for index, texts in stream:
            answered.append((index, len(texts)))

    with pytest.raises(LoadError, match="what was answered is kept"):
        collect(sampler(endpoint, max_concurrency=2, max_retries=0).stream(CHAT, draws([[1], [1, 2, 3], [1]])))
    assert (1, 3) in answered
    assert len(endpoint.bodies) == 1 + sum(count for _, count in answered), "no answer is lost"
