"""How many candidates compile, and define the function that is asked for: as written, by a naive rule, by `extract_program`.

Reads candidate groups with the column `raw_completions`, which `trl-rrtf sample` writes. The naive rule takes the first fenced
block, or all of the text. Only students' and teachers' texts count, no references.

    python recipes/benchmarks/extraction.py FILE.jsonl [FILE.jsonl ...]
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import defaultdict

from trl_rrtf import CandidateGroup, extract_program
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.files import stream_rows


def naive(text, problem):
    """The first fenced block, or the text."""
    match = re.search(r"```(?:python)?\n(.*?)```", text, re.DOTALL)
    return match[1] if match else text


WAYS = {"as written": lambda text, problem: text, "first fenced block": naive, "extract_program": extract_program}


def check(program, entry_point):
    """Whether it compiles, and whether it then defines the entry point."""
    try:
        tree = parse_program(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False, False
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return bool(program.strip()), entry_point in names


def main():
    """Prints a table, and says where extraction loses a program that was good as written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="candidate groups")
    compiles, defines = defaultdict(lambda: defaultdict(int)), defaultdict(lambda: defaultdict(int))
    totals, lost = defaultdict(int), 0
    for file in parser.parse_args().files:
        for group in stream_rows(file, CandidateGroup):
            for candidate in group.candidates:
                text, model = candidate.raw, candidate.model
                if text is None:
                    continue
                totals[model] += 1
                results = {way: check(extract(text, group), group.entry_point) for way, extract in WAYS.items()}
                for way, (compiled, defined) in results.items():
                    compiles[model][way] += compiled
                    defines[model][way] += defined
                lost += results["as written"] > results["extract_program"]
    print("| model | candidates | " + " | ".join(f"{way}: compile, define" for way in WAYS) + " |")
    print("|---" * (2 + len(WAYS)) + "|")
    for model, total in totals.items():
        shares = " | ".join(f"{compiles[model][way] / total:.1%}, {defines[model][way] / total:.1%}" for way in WAYS)
        print(f"| {model} | {total} | {shares} |")
    print(f"\ncandidates that were good as written and are not after extraction: {lost}")


if __name__ == "__main__":
    main()
