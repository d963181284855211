"""A stage's work on the machines of a Ray cluster, by Ray Data. Reading, order and files stay with the stage, on this machine.

Each item becomes a block in the object store of Ray, which spills to disk, so that the items need not fit into memory. What
a machine had in its hands when it was lost goes to another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trl_rrtf.errors import ClusterError, ConfigError, TrlRrtfError

Item = tuple[int, Any]
"""A place in the file, and what stands there (JSON-able)."""


def map_on_cluster(
    address: str, make_worker: Callable[[], Callable[[Any], Any]], items: Iterable[Item], *, whole_machines: bool = False
) -> Iterator[Item]:
    """Applies a worker to each item, on all machines of a cluster.

    Args:
        address: A Ray cluster: `auto` for the one that this machine belongs to, `host:port`, or `local` for this machine alone.
        make_worker: Makes a worker, once in each of its processes; pickled.
        items: Places and JSON-able contents.
        whole_machines: Whether a worker takes a GPU, or without GPUs all cores of a machine, instead of one core.

    Yields:
        Place and JSON-able result, in the order in which they are done.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
        ClusterError: A worker did not start, or refused an item, with what it said.
    """
    try:
        import pyarrow
        import ray
    except ImportError as error:
        raise ConfigError("`cluster`: needs Ray; `pip install 'trl-rrtf[ray]'`") from error
    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            ray.init(address=address)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"`cluster`: no Ray cluster at `{address}` ({error}); start one with `ray start`") from error
    try:
        blocks = [ray.put(pyarrow.table({"place": [place], "item": [json.dumps(item)]})) for place, item in items]
        if not blocks:
            return
        num_workers, resources = _workers(ray.nodes(), whole_machines)
        results = ray.data.from_arrow_refs(blocks).map_batches(
            _Mapper,
            fn_constructor_args=(make_worker,),
            batch_size=1,
            # At least one, not all: what remains of a cluster must be able to finish the work.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_workers),
            **resources,
        )
        for row in results.iter_rows():
            if row["error"]:
                raise ClusterError(f"a worker of the cluster: {row['error']}")
            yield int(row["place"]), json.loads(row["result"])
    except ray.exceptions.ActorDiedError as error:
        raise ClusterError(f"a worker of the cluster did not start: {str(error).strip()}") from error
    finally:
        if is_ours:
            ray.shutdown()


def _workers(machines: list[dict[str, Any]], whole_machines: bool) -> tuple[int, dict[str, float]]:
    """How many workers there is room for, and what each takes."""
    resources = [machine["Resources"] for machine in machines if machine["Alive"] and machine["Resources"].get("CPU")]
    gpus = sum(int(has.get("GPU", 0)) for has in resources)
    cores = [int(has["CPU"]) for has in resources]
    if whole_machines and gpus:
        return gpus, {"num_gpus": 1, "num_cpus": 1}
    return (len(cores), {"num_cpus": min(cores)}) if whole_machines else (sum(cores), {"num_cpus": 1})


class _Mapper:
    """A worker as Ray Data calls it."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = make_worker()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Works on the one item of a batch. Its errors are sent as text: Ray would wrap them in a page of its own frames."""
        result, error = None, ""
        try:
            result = self._work(json.loads(batch["item"][0]))
        except TrlRrtfError as problem:
            error = str(problem)
        return {"place": batch["place"], "result": [json.dumps(result)], "error": [error]}
