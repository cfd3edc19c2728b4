"""Work spread over the connected cluster or done on this node, with results in the order of the items."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from glioflow.cluster.connection import connect, is_connected, resources
from glioflow.cluster.environment import silence
from glioflow.cluster.memory import memory_shortage
from glioflow.cluster.storage import home_uri
from glioflow.errors import GlioflowError, RunFailed, last_line
from glioflow.progress import Say, occasionally, quiet, waiting
from glioflow.quantities import count

Item = TypeVar("Item")
Result = TypeVar("Result")

# Up to this many cases, starting Ray takes longer than the work.
_FEW = 12


def map_parallel(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    here: bool = False,
) -> Iterator[Result]:
    """Run `function` over `items` as Ray tasks, yielding results in the items' order.

    Args:
        function: Picklable; its `GlioflowError` is raised here unchanged.
        items: Each picklable.
        num_cpus: CPUs of one task.
        num_gpus: GPUs of one task, which sees no others.
        here: Run on this node only, as many at once as it has CPUs, even if others booked them.
    """
    connect()
    import ray

    if here:
        task, ahead = ray.remote(num_cpus=0)(_answer).options(**_on(own_node())), os.cpu_count() or 1
    else:
        task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(_answer).options(max_retries=2)
        ahead = max(2, int(4 * resources()["CPU"] / max(num_cpus, 0.1)))
    running: list[Any] = []
    try:
        for item in items:
            running.append(task.remote(function, item))
            if len(running) >= ahead:
                yield _result(ray.get(running.pop(0)))
        while running:
            yield _result(ray.get(running.pop(0)))
    except ray.exceptions.OutOfMemoryError as error:
        lower = "the CPUs that Ray uses, or close what else takes memory on this machine"
        raise RunFailed(memory_shortage(error, lower=lower)) from error
    finally:  # after an error, nothing keeps running in the background
        for reference in running:
            ray.cancel(reference)
        if running:
            ray.wait(running, num_returns=len(running), timeout=60)


def map_cases(function: Callable[[Item], Result], cases: Iterable[Item], *, say: Say = quiet) -> Iterator[Result]:
    """Run `function` over a cohort's cases as `map_parallel` does; if few and Ray is not running, in this process.

    If the home is an object store, the nodes share no disk, and only this one has the files.

    Args:
        function: As for `map_parallel`.
        cases: Each picklable.
        say: Called with the fraction done after each case, now and then with a line, and every 10 s before the first.
    """
    items, report = list(cases), occasionally(say)
    is_here = len(items) <= _FEW and not is_connected()
    results = map(function, items) if is_here else map_parallel(function, items, here=home_uri() is not None)
    with waiting(f"the first of {count(len(items), 'case')}", say) as begun:
        for done, result in enumerate(results, start=1):
            begun()
            report(f"case {done} of {len(items)}", done / len(items))
            yield result


def on_each_node(function: Callable[[Item], str], item: Item, *, within_s: float) -> dict[str, str]:
    """Run `function` once on each node of the connected cluster; return its results by the node's address and id.

    If a node returns none in `within_s`, its result is the reason; a node that leaves meanwhile is left out.
    """
    import ray

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    there = [node for node in ray.nodes() if node["Alive"]]
    asked = {str(node["NodeID"]): task.options(**_on(str(node["NodeID"]))).remote(item) for node in there}
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=within_s)
    alive = {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
    answers: dict[str, str] = {}
    for node in there:
        reference = asked[str(node["NodeID"])]
        try:
            answer = ray.get(reference) if reference in ready else f"no answer in {within_s:.0f} s"
        except ray.exceptions.RayError as error:
            answer = last_line(error)
        if str(node["NodeID"]) in alive:
            answers[f"{node['NodeManagerAddress']} ({node['NodeID']})"] = answer
    return answers


def own_node() -> str:
    """Return the id of the node on which this process runs."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _on(node: str) -> dict[str, Any]:
    """Return the options of a task that must run on one given node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _answer(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, GlioflowError | None]:
    silence()
    # Return a user's mistake as a value: Ray wraps raised errors in its own class and traceback.
    try:
        return function(item), None
    except GlioflowError as error:
        return None, error


def _result(answer: tuple[Any, GlioflowError | None]) -> Any:
    value, error = answer
    if error is not None:
        raise error
    return value
