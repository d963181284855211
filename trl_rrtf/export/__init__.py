"""From a checkpoint to ONNX Runtime: export, precisions, parity. Never imports the trainer."""

from trl_rrtf.export.config import ExportArguments, ExportConfig
from trl_rrtf.export.stage import run_export

__all__ = ["ExportArguments", "ExportConfig", "run_export"]
