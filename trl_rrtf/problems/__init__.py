"""Where problems come from: files, folders, Hub data sets and HumanEval, in the formats as published."""

from trl_rrtf.problems.loaders import SkippedRows, check_problems, iterate_problems, load_problems, placed_problems

__all__ = ["SkippedRows", "check_problems", "iterate_problems", "load_problems", "placed_problems"]
