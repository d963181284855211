"""The judge as an environment: what a model is shown, what it may do, what it is paid. `recipes/grpo/repair.py` trains."""

from __future__ import annotations

import copy
import inspect
import math
import pickle

import pytest

from trl_rrtf import (
    ConfigError,
    JudgeConfig,
    JudgeError,
    Outcome,
    RankConfig,
    RowError,
    UnitTestEnvironment,
    UnitTestEnvironmentFactory,
    UnitTestReward,
    unit_test_environment_reward,
)

TESTS = [{"kind": "assert", "code": f"assert f({x}) == {x + 1}"} for x in (1, 2, 70707)]
ROW = {"prompt": [{"role": "user", "content": "Write f."}], "tests": TESTS, "entry_point": "f", "problem_id": "f"}
RIGHT = "def f(x):\n    return x + 1\n"
ONLY_PUBLIC = "def f(x):\n    return min(x + 1, 3)\n"
WRONG = "def f(x):\n    return x\n"
OUTCOMES = ("compile_error", "runtime_error", "failed", "partial", "passed", "infrastructure")


@pytest.fixture(scope="module")
def factory():
    with UnitTestEnvironmentFactory(JudgeConfig(timeout=3, num_workers=1), public_tests=2, credit="tests") as made:
        yield made


@pytest.fixture
def environment(factory):
    made = factory()
    made.reset(**ROW)
    return made


# --- What the model is shown -------------------------------------------------------------------------------------------------


def test_the_first_public_test_that_fails_is_shown(environment):
    shown = environment.run_public_tests(WRONG)
    assert "assert f(1) == 2" in shown
    assert "Expected: 2" in shown
    assert "Got: 1" in shown
    assert "f(2)" not in shown


def test_nothing_is_shown_of_a_hidden_test(environment):
    """Whether it passes the hidden ones too or not, the answers are the same, and the environment judges none of them."""
    for program in (ONLY_PUBLIC, RIGHT):
        assert environment.run_public_tests(program) == "All 2 public tests pass."
    assert environment.submit(ONLY_PUBLIC) == "Submitted."
    assert environment.verdict.outcome is Outcome.PARTIAL


def test_a_hidden_test_is_in_no_answer(environment):
    answers = [environment.run_public_tests(program) for program in (WRONG, "def f(x)\n", "def f(x): raise KeyError(x)")]
    assert not [answer for answer in answers if "70707" in answer or "70708" in answer]


def test_the_row_says_how_many_tests_are_public(factory):
    environment = factory()
    environment.reset(**ROW, public_tests=1)
    assert environment.run_public_tests("def f(x):\n    return 2\n") == "The public test passes."
    environment.reset(**ROW, public_tests=None)  # as a data set has it whose other rows have a number
    assert "f(2)" in environment.run_public_tests("def f(x):\n    return 2\n")


def test_a_problem_without_public_tests_is_said_once(caplog):
    with UnitTestEnvironmentFactory(JudgeConfig(num_workers=1)) as factory:
        for name in ("f", "g"):
            environment = factory()
            environment.reset(**ROW | {"problem_id": name})
            with pytest.raises(ValueError, match="no public tests; submit the program"):
                environment.run_public_tests(RIGHT)
    assert len(caplog.records) == 1
    assert "problem 'f' has no public tests" in caplog.text


def test_a_problem_without_hidden_tests_is_said_once_and_counted(caplog):
    check = {"kind": "check", "code": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(5) == 6\n"}
    with UnitTestEnvironmentFactory(JudgeConfig(num_workers=1), public_tests=1) as factory:
        environments = [factory() for _ in range(4)]
        for environment, tests in zip(environments, ([check], [check], ROW["tests"], ROW["tests"]), strict=True):
            environment.reset(**ROW | {"problem_id": "f", "tests": tests})
        logged = {}
        unit_test_environment_reward(environments, log_metric=lambda name, value: logged.update({name: value}))
    assert [record.getMessage()[:48] for record in caplog.records] == ["problem 'f' has no hidden tests: `run_public_tes"]
    assert logged["unit_test_environment_reward/without_hidden_tests"] == 0.5


@pytest.mark.parametrize("make", [UnitTestEnvironmentFactory, UnitTestReward])
def test_settings_of_a_wrong_type_are_refused_at_once(make):
    for given in ({"timeout": 3}, {}, 3):
        with pytest.raises(ConfigError, match="`judge_config`: expected a JudgeConfig"):
            make(judge_config=given)
    with pytest.raises(ConfigError, match="`rank_config`: expected a RankConfig, got dict"):
        make(rank_config={"partial_credit": 0.5})


def test_the_program_is_taken_out_of_its_fence(environment):
    assert environment.run_public_tests(f"```python\n{RIGHT}```") == "All 2 public tests pass."
    assert environment.programs == [RIGHT]


# --- What it may do ----------------------------------------------------------------------------------------------------------


def test_the_tools_are_told_by_their_docstrings(environment):
    """As TRL finds them, and as chat templates are given them."""
    from transformers.utils import get_json_schema

    found = [name for name, _ in inspect.getmembers(UnitTestEnvironment, inspect.isfunction) if not name.startswith("_")]
    assert found == ["reset", "run_public_tests", "submit"]
    for name in found[1:]:
        schema = get_json_schema(getattr(environment, name))["function"]
        assert schema["parameters"]["properties"] == {"program": {"type": "string", "description": "The whole Python program."}}
        assert schema["description"]


def test_the_public_tests_run_a_limited_number_of_times():
    with UnitTestEnvironmentFactory(JudgeConfig(num_workers=1), public_tests=1, max_test_runs=2) as factory:
        environment = factory()
        environment.reset(**ROW)
        for _ in range(2):
            environment.run_public_tests(WRONG)
        with pytest.raises(ValueError, match=r"run as often as they may \(2\); submit the program"):
            environment.run_public_tests(RIGHT)
        assert environment.submit(RIGHT) == "Submitted."


def test_submitting_ends_the_episode(environment):
    environment.submit(WRONG)
    for tool in (environment.submit, environment.run_public_tests):
        with pytest.raises(ValueError, match="submitted already; the task is over"):
            tool(RIGHT)
    assert environment.submitted == WRONG


@pytest.mark.parametrize("program", ["", " \n", None, ["def f(x): pass"]])
def test_no_program_is_no_run_and_no_submission(environment, program):
    for tool in (environment.submit, environment.run_public_tests):
        with pytest.raises(ValueError, match="expected the text of a whole Python program"):
            tool(program)
    assert environment.submitted is None
    assert environment.programs == []


def test_an_episode_starts_anew(environment):
    environment.run_public_tests(WRONG)
    environment.submit(RIGHT)
    assert environment.repaired
    environment.reset(**ROW)
    assert (environment.submitted, environment.programs, environment.repaired) == (None, [], False)
    assert environment.verdict.outcome is Outcome.COMPILE_ERROR


# --- What it is paid ---------------------------------------------------------------------------------------------------------


def test_all_tests_of_the_row_make_the_reward(factory):
    environments = [factory() for _ in range(4)]
    for environment, program in zip(environments, [RIGHT, ONLY_PUBLIC, WRONG, None], strict=True):
        environment.reset(**ROW)
        environment.run_public_tests(WRONG if program is RIGHT else RIGHT)
        if program is not None:
            environment.submit(program)
    shares, columns = {}, {}
    rewards = unit_test_environment_reward(
        environments, log_metric=shares.__setitem__, log_extra=columns.__setitem__, prompts=[], trainer_state=None
    )
    assert rewards == pytest.approx([1, 2 / 3, 0, 0])  # what ran and was not submitted is worth nothing
    own = {name.removeprefix("unit_test_environment_reward/"): value for name, value in shares.items()}
    assert sum(own[outcome] for outcome in OUTCOMES) == pytest.approx(1)
    assert [own[outcome] for outcome in ("passed", "partial", "failed", "compile_error")] == [0.25] * 4
    assert (own["submitted"], own["repaired"], own["test_runs"]) == (0.75, 0.25, 1)
    assert columns["unit_test_environment_reward_outcome"][:2] == ["passed 3/3", "partial 2/3"]


def test_an_environment_can_tell_its_reward_itself():
    """Asynchronous GRPO gives no environments to a reward function."""
    with UnitTestEnvironmentFactory(
        JudgeConfig(num_workers=1), rank_config=RankConfig(partial_credit=0.0), owns_reward=True
    ) as factory:
        environment = factory()
        environment.reset(**ROW)
        environment.submit(ONLY_PUBLIC)
        assert environment.get_reward() == pytest.approx(2 / 3)
        with pytest.raises(ConfigError, match="`owns_reward`: the environments tell TRL their reward; leave"):
            unit_test_environment_reward([environment])


def test_other_environments_have_no_reward_of_this_kind(environment):
    environment.submit(RIGHT)
    columns = {}
    assert unit_test_environment_reward([object(), environment], log_extra=columns.__setitem__) == [None, 1.0]
    assert columns["unit_test_environment_reward_detail"] == ["", ""]


def test_without_environments_the_way_out_is_named():
    with pytest.raises(ConfigError, match=r"pass `environment_factory=UnitTestEnvironmentFactory\(\.\.\.\)`"):
        unit_test_environment_reward(prompts=[], completions=[])


def test_a_failure_of_the_judge_is_no_run_and_no_reward(monkeypatch, caplog):
    with UnitTestEnvironmentFactory(JudgeConfig(retries=0, num_workers=1), public_tests=1) as factory:
        environment = factory()
        environment.reset(**ROW)
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", "/no/such/python")
            with pytest.raises(RuntimeError, match="could not be run here, which says nothing of the program"):
                environment.run_public_tests(WRONG)
            environment.submit(RIGHT)
            assert unit_test_environment_reward([environment]) == [None]
        assert environment.programs == []
        assert factory.unjudged == 2
    assert len(caplog.records) == 1
    assert "`unjudged` of the factory counts them" in caplog.text


def test_a_failure_of_the_judge_is_not_a_number_where_the_environment_tells_it(monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with UnitTestEnvironmentFactory(JudgeConfig(retries=0, num_workers=1), public_tests=1, owns_reward=True) as factory:
        environment = factory()
        environment.reset(**ROW)
        environment.submit(RIGHT)
        assert math.isnan(environment.get_reward())


# --- What is no model's fault: TRL shows a model what its tools raise, so it has to be found before ------------------------


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"tests": None}, RowError, "`tests`: the data set has no such column"),
        ({"tests": []}, RowError, "the list is empty"),
        ({"public_tests": 4}, RowError, "says that 4 tests are public, and the problem has 3"),
        ({"tests": [{"kind": "assert", "code": "assert f(1) =="}]}, ConfigError, "problem 'f'"),
    ],
)
def test_a_wrong_row_is_named_by_reset(factory, row, error, message):
    with pytest.raises(error, match=message):
        factory().reset(**ROW | row)


def test_a_judge_that_cannot_be_opened_is_named_by_reset(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with UnitTestEnvironmentFactory(public_tests=1) as factory, pytest.raises(JudgeError, match="needs Linux"):
        factory().reset(**ROW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"public_tests": -1}, "`public_tests`: expected a number of tests of 0 or more, or None, got -1"),
        ({"max_test_runs": True}, "`max_test_runs`: expected a number of 0 or more, got True"),
        ({"credit": "all"}, "`credit`: expected one of outcome, tests, pass, got 'all'"),
    ],
)
def test_a_wrong_setting_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        UnitTestEnvironmentFactory(**options)


def test_a_tool_before_an_episode_is_an_error_of_the_caller(factory):
    with pytest.raises(ConfigError, match="`reset` was not called"):
        factory().submit(RIGHT)


# --- Where it works ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [lambda factory: pickle.loads(pickle.dumps(factory)), copy.deepcopy])
def test_a_copy_has_the_settings_and_a_judge_of_its_own(factory, environment, copied):
    environment.submit(RIGHT)
    with copied(factory) as other:
        assert other.judge is not factory.judge
        assert (other.public_tests, other.max_test_runs, other.credit.credit) == (2, 3, "tests")
        made = other()
        made.reset(**ROW)
        made.submit(ONLY_PUBLIC)
        assert unit_test_environment_reward([environment, made]) == pytest.approx([1, 2 / 3])


def test_the_class_itself_is_a_factory_with_the_defaults():
    first, second = UnitTestEnvironment(), UnitTestEnvironment()
    assert first._factory is second._factory  # and with it the judge
    first.reset(**ROW)
    first.submit(RIGHT)
    assert unit_test_environment_reward([first]) == [1.0]
    first._factory.close()
