"""The stages in a row, from one YAML file: the configuration, the plan, the run, the tables."""

from trl_rrtf.pipeline.config import PipelineConfig, load_pipeline_config

__all__ = ["PipelineConfig", "load_pipeline_config"]
