"""Which processes a process has started, and which of them are left."""

from __future__ import annotations

import os
import time
from pathlib import Path


def children(process_id):
    """The ids of the processes that a process has started."""
    tasks = [f"/proc/{process_id}/task/{task}/children" for task in os.listdir(f"/proc/{process_id}/task")]
    return sorted(child for task in tasks for child in Path(task).read_text().split())


def descendants(process_id):
    """The ids of the processes that a process has started, and of theirs."""
    return [one for child in children(process_id) for one in (child, *descendants(child))]


def still_running(process_ids):
    """Those that run a few seconds later; what has ended is there until its parent, or the first process, clears it away."""
    for _ in range(50):
        running = [number for number in process_ids if _state(number) not in ("", "Z")]
        if not running:
            break
        time.sleep(0.1)
    return running


def _state(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
