"""How many candidates pass after they were repaired: pass@1 of the first attempts, and of their chains turn by turn."""

from __future__ import annotations

from collections.abc import Iterable

from trl_rrtf.errors import ConfigError, JudgeError
from trl_rrtf.rows.records import JudgedGroup, Outcome


def after_repairs(groups: Iterable[JudgedGroup]) -> dict[int, list[float]]:
    """The share of each problem's chains that pass after so many repair turns, as `sample --repair_turns` draws them.

    A chain is a candidate that repairs none, with its repairs. After a turn it passes if its last program until then does; one
    that was not repaired any more, since it passed its public tests, keeps its last program. References are left out, and so
    are chains with a program that could not be judged.

    Args:
        groups: Judged groups, sampled without `deduplicate` (which takes links out of chains) by a single run.

    Returns:
        Turn (0: the first attempts, whose mean is pass@1) -> one share per problem, in the order of the groups; as many for
        each turn, so that two turns can be compared in pairs.

    Raises:
        ConfigError: A candidate has two repairs, or the groups are none.
        JudgeError: No chain of a problem could be judged.
    """
    of_problems = [_passing_after_turns(group) for group in groups]
    if not of_problems:
        raise ConfigError("`groups`: there is none; give the judged groups of a run of `trl-rrtf sample --repair_turns N`")
    last = max(len(chain) for chains in of_problems for chain in chains)
    return {
        turn: [sum(chain[min(turn, len(chain) - 1)] for chain in chains) / len(chains) for chains in of_problems]
        for turn in range(last)
    }


def _passing_after_turns(group: JudgedGroup) -> list[list[bool]]:
    """For each chain of a problem that could be judged whether it passes, link by link."""
    repair_of: dict[int, int] = {}
    for index, candidate in enumerate(group.candidates):
        if candidate.repair_of is None:
            continue
        if candidate.repair_of in repair_of:
            raise ConfigError(
                f"`groups`: candidate {candidate.repair_of} of problem {group.problem_id!r} has two repairs, so there is no "
                "last one; sample in a single run, without `deduplicate`"
            )
        repair_of[candidate.repair_of] = index
    chains = []
    for start, candidate in enumerate(group.candidates):
        if candidate.repair_of is not None or candidate.source == "reference":
            continue
        links = [start]
        while links[-1] in repair_of:
            links.append(repair_of[links[-1]])
        outcomes = [group.verdicts[index].outcome for index in links]
        if Outcome.INFRASTRUCTURE not in outcomes:
            chains.append([outcome is Outcome.PASSED for outcome in outcomes])
    if not chains:
        raise JudgeError(f"no candidate of problem {group.problem_id!r} could be judged with its repairs; judge again")
    return chains
