"""Candidates from students and teachers: one `Sampler` protocol, one module per engine, program extraction."""

from trl_rrtf.sampling.config import (
    GenerateConfig,
    SampleArguments,
    SamplingConfig,
    TeacherLogProbsArguments,
    TeacherLogProbsConfig,
)
from trl_rrtf.sampling.draws import Draws, Sampler
from trl_rrtf.sampling.extraction import extract_program
from trl_rrtf.sampling.generate import GenerateSummary, run_generate
from trl_rrtf.sampling.sampler import make_sampler
from trl_rrtf.sampling.stage import SampleSummary, run_sample
from trl_rrtf.sampling.teacher_log_probs import TeacherLogProbsSummary, run_teacher_log_probs

__all__ = [
    "Draws",
    "GenerateConfig",
    "GenerateSummary",
    "SampleArguments",
    "SampleSummary",
    "Sampler",
    "SamplingConfig",
    "TeacherLogProbsArguments",
    "TeacherLogProbsConfig",
    "TeacherLogProbsSummary",
    "extract_program",
    "make_sampler",
    "run_generate",
    "run_sample",
    "run_teacher_log_probs",
]
