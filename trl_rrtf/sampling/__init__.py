"""Candidates from students and teachers: one `Sampler` protocol, one module per engine, program extraction."""

from trl_rrtf.sampling.config import SampleArguments, SamplingConfig
from trl_rrtf.sampling.extraction import extract_program
from trl_rrtf.sampling.sampler import Sampler, make_sampler
from trl_rrtf.sampling.stage import run_sample

__all__ = ["SampleArguments", "Sampler", "SamplingConfig", "extract_program", "make_sampler", "run_sample"]
