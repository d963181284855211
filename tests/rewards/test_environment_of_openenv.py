"""The environment as OpenEnv has it: against the real package, in this process and through its server."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading

import pytest

from trl_rrtf import ConfigError, JudgeConfig, Problem, UnitTestEnvironmentFactory

TESTS = [{"kind": "assert", "code": f"assert f({x}) == {x + 1}"} for x in (1, 2, 70707)]
RIGHT = "def f(x):\n    return x + 1\n"
WRONG = "def f(x):\n    return 2\n"

needs_openenv = pytest.mark.skipif(importlib.util.find_spec("openenv") is None, reason="needs openenv")


@pytest.fixture
def problems():
    return [
        Problem.from_row({"problem_id": name, "prompt": f"Write f, {name}.", "tests": TESTS, "entry_point": "f"}, name)
        for name in ("one", "two", "three")
    ]


@pytest.fixture(scope="module")
def factory():
    with UnitTestEnvironmentFactory(JudgeConfig(timeout=3, num_workers=1), public_tests=1, credit="tests") as made:
        yield made


def step(module, tool, program):
    return module.UnitTestAction(tool=tool, program=program)


@pytest.fixture
def module():
    return importlib.import_module("trl_rrtf.rewards.open_env")


def test_without_the_package_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openenv", None)
    monkeypatch.setitem(sys.modules, "openenv.core.env_server", None)
    monkeypatch.delitem(sys.modules, "trl_rrtf.rewards.open_env", raising=False)
    with pytest.raises(ConfigError, match=r"needs OpenEnv; `pip install 'trl-rrtf\[openenv\]'`"):
        importlib.import_module("trl_rrtf.rewards.open_env")


@needs_openenv
def test_an_episode_has_the_same_steps_and_reward(module, problems, factory):
    environment = module.UnitTestOpenEnvironment(problems, factory)
    assert environment.reset(index=1, episode_id="e").text == "Write f, two."
    shown = environment.step(step(module, "run_public_tests", "def f(x):\n    return x\n"))
    assert "assert f(1) == 2" in shown.text
    assert (shown.done, shown.reward) == (False, None)
    done = environment.step(step(module, "submit", WRONG))
    assert (done.text, done.done, done.reward) == ("Submitted.", True, pytest.approx(1 / 3))
    again = environment.step(step(module, "submit", RIGHT))
    assert (again.text, again.done, again.reward) == ("a program is submitted already; the task is over", True, None)
    state = environment.state.model_dump()
    assert state == {"episode_id": "e", "step_count": 3, "problem_id": "two", "test_runs": 1, "submitted": True}


@needs_openenv
def test_a_seed_fixes_the_problem(module, problems, factory):
    environment = module.UnitTestOpenEnvironment(problems, factory)
    drawn = [environment.reset(seed=seed).text for seed in range(12)]
    assert drawn == [environment.reset(seed=seed).text for seed in range(12)]
    assert len(set(drawn)) == 3


@needs_openenv
def test_what_the_caller_does_wrong_is_an_error(module, problems, factory):
    with pytest.raises(ConfigError, match="`problems`: expected at least one"):
        module.UnitTestOpenEnvironment([], factory)
    environment = module.UnitTestOpenEnvironment(problems, factory)
    with pytest.raises(ConfigError, match="`reset` was not called"):
        environment.step(step(module, "submit", RIGHT))
    with pytest.raises(ConfigError, match="`index`: expected one from 0 to 2, got 3"):
        environment.reset(index=3)


@needs_openenv
def test_a_client_of_openenv_plays_episodes_side_by_side_on_its_server(module, problems, factory):
    import socket

    import uvicorn
    from openenv.core import GenericEnvClient

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(module.make_app(problems, factory), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with GenericEnvClient(base_url=address).sync() as first, GenericEnvClient(base_url=address).sync() as second:
            assert first.reset(index=0).observation["text"] == "Write f, one."
            assert second.reset(index=2).observation["text"] == "Write f, three."
            shown = first.step({"tool": "run_public_tests", "program": WRONG})
            assert (shown.observation["text"], shown.done) == ("The public test passes.", False)
            assert second.step({"tool": "submit", "program": RIGHT}).reward == 1
            assert first.step({"tool": "submit", "program": WRONG}).reward == pytest.approx(1 / 3)
            assert first.state()["test_runs"] == 1
            assert "70707" not in str((shown, first.state()))
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
