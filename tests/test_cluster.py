"""`sample` and `judge` on a Ray cluster of two machines (two sets of Ray's processes here), of which one is killed."""

from __future__ import annotations

import json
import threading
import time

import pytest

from trl_rrtf import ConfigError, JudgeConfig, SamplingConfig
from trl_rrtf.cluster import map_on_cluster
from trl_rrtf.errors import ClusterError
from trl_rrtf.judging.config import JudgeArguments
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.sampling import SampleArguments, run_sample

ray = pytest.importorskip("ray")

PROBLEMS = 24


def machine_namer():
    """A slow worker that says on which machine it works; local, so that Ray sends its code and not its module's name."""

    def work(item):
        time.sleep(0.2)
        return [item, ray.get_runtime_context().get_node_id()]

    return lambda: work


def test_no_cluster_is_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match="no Ray cluster at `auto`"):
        list(map_on_cluster("auto", machine_namer(), [(0, {})]))


@pytest.fixture(scope="module")
def first_machine():
    """A cluster of one machine with one core, for all tests below: it takes seconds to start."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def two_machines(first_machine):
    """The cluster with a second machine; yields what kills that, as a power cut would."""
    second = first_machine.add_node(num_cpus=1)

    def kill():
        if second in first_machine.worker_nodes:
            first_machine.remove_node(second, allow_graceful=False)

    yield kill
    kill()


@pytest.fixture
def problems(tmp_path):
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": f"Write `f`, which returns {i}." + " Please." * (i % 5),
            "tests": [{"kind": "assert", "code": f"assert f() == {i}"}, {"kind": "assert", "code": "assert f() < 20"}],
            "entry_point": "f",
            "reference_solution": f"def f():\n    return {i}\n",
        }
        for i in range(PROBLEMS)
    ]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.timeout(200)
def test_a_lost_machine_loses_no_work(two_machines):
    """The machine that is killed had items in its hands."""
    results, machines, alive = {}, set(), True
    for place, (item, machine) in map_on_cluster("auto", machine_namer(), ((i, {"n": i}) for i in range(60))):
        assert place not in results
        results[place] = item
        machines.add(machine)
        if alive and len(machines) == 2:
            two_machines()
            alive = False
    assert not alive, "the second machine did nothing"
    assert results == {i: {"n": i} for i in range(60)}


@pytest.mark.timeout(280)
def test_sampling_and_judging_on_a_cluster_that_loses_a_machine_write_what_one_machine_writes(
    two_machines, problems, tiny_model_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sampling = SamplingConfig(
        str(tiny_model_dir),
        num_generations=2,
        max_new_tokens=6,
        batch_size=3,
        prompt_style="completion",
        include_reference=True,
    )
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, cluster in ((here, None), (there, "auto")):
        run_sample(SampleArguments(problems, str(folder / "candidates.jsonl"), cluster=cluster), sampling)
        killer = threading.Timer(6, two_machines)
        if cluster:
            killer.start()
        judge = JudgeArguments(str(folder / "candidates.jsonl"), str(folder / "judged.jsonl"), cluster=cluster)
        summary = run_judge(judge, JudgeConfig())
        if cluster:
            killer.join()  # before the cluster is taken down, should the work have ended first
        assert summary.outcomes["passed"] == 20
    assert (here / "candidates.jsonl").read_bytes() == (there / "candidates.jsonl").read_bytes()
    assert verdicts(here) == verdicts(there)


@pytest.mark.timeout(200)
def test_what_a_worker_raises_reaches_the_user(two_machines):
    def refuse(item):
        raise ConfigError("`item`: not this one")

    def cannot_start():
        raise ConfigError("`model`: is not on this machine")

    with pytest.raises(ClusterError, match="not this one"):
        list(map_on_cluster("auto", lambda: refuse, [(0, {})]))
    with pytest.raises(ClusterError, match="is not on this machine"):
        list(map_on_cluster("auto", cannot_start, [(0, {})]))


def verdicts(folder):
    """Judged rows without the seconds, which no two runs share."""
    rows = [json.loads(line) for line in (folder / "judged.jsonl").read_text().splitlines()]
    for row in rows:
        for verdict in row["verdicts"]:
            del verdict["seconds"]
    return rows
