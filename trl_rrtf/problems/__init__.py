"""Where problems come from: files, folders, Hub data sets and HumanEval, in the formats as published."""

from trl_rrtf.problems.loaders import iterate_problems, load_problems

__all__ = ["iterate_problems", "load_problems"]
