"""The `train` stage: what decides its weights, what it goes on from, and what it never touches."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys

import pytest
from trl import ModelConfig

from tests.conftest import CHAT_TEMPLATE, ranked_row
from trl_rrtf import ConfigError, LoadError, OutputError, RRTFConfig
from trl_rrtf.options import settings_of
from trl_rrtf.rows.resumable import output_lock
from trl_rrtf.training import stage
from trl_rrtf.training.config import CHOOSE_BY_EVALUATION, WITHOUT_EFFECT
from trl_rrtf.training.options import TrainArguments
from trl_rrtf.training.settings import SETTINGS_FILE, training_settings
from trl_rrtf.training.stage import RESULT_FILE, run_train

OPTIONS = {"bf16": False, "use_cpu": True, "report_to": [], "disable_tqdm": True, "max_steps": 3, "save_steps": 1}
OPTIONS |= {"learning_rate": 1e-2, "per_device_train_batch_size": 2, "logging_steps": 1}
NOT_DECIDING = {name for names in WITHOUT_EFFECT.values() for name in names}


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    path = tmp_path_factory.mktemp("groups") / "r.jsonl"
    path.write_text("".join(json.dumps(ranked_row(3, prompt=f"p{i}", seed=i)) + "\n" for i in range(8)))
    return path


@pytest.fixture(scope="module")
def finished(groups, tiny_model_dir, tmp_path_factory):
    """A training of three steps with a checkpoint after each; tests take copies."""
    folder = tmp_path_factory.mktemp("finished") / "d"
    train(groups, tiny_model_dir, folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "d")


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(stage, "RRTFTrainer", None)


def train(groups, model, output_dir, *, model_options=None, eval_dataset=None, **options):
    arguments = TrainArguments(str(groups), str(model), eval_dataset and str(eval_dataset))
    return run_train(arguments, RRTFConfig(str(output_dir), **{**OPTIONS, **options}), ModelConfig(**(model_options or {})))


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# --- What decides the weights --------------------------------------------------------------------------------------------


def test_a_finished_training_is_told_and_not_repeated(groups, tiny_model_dir, copied, no_training):
    summary = train(groups, tiny_model_dir, copied)
    assert summary.steps == 3
    assert summary.output == str(copied)
    assert summary.train_first["loss/rank"] != summary.train_last["loss/rank"]
    table = summary.table()
    assert list(table)[:3] == ["steps", "seconds", "train first: loss"]
    assert list(table)[-1] == "output"
    assert "pushed to" not in table
    assert json.loads((copied / SETTINGS_FILE).read_text())["model"] == str(tiny_model_dir)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e-3),
        ("adam_beta2", 0.9),
        ("adam_epsilon", 1e-6),
        ("neftune_noise_alpha", 5.0),
        ("lr_scheduler_kwargs", {"num_cycles": 2}),
        ("optim_args", "fused=true"),
        ("model_init_kwargs", {"attn_implementation": "eager"}),
        ("eos_token", "<|im_start|>"),
        ("load_best_model_at_end", True),
        ("rank_loss", "rrhf"),
        ("seed", 7),
    ],
)
def test_another_option_that_decides_the_weights_is_refused(groups, tiny_model_dir, finished, no_training, name, value):
    options = {name: value}
    if name == "load_best_model_at_end":
        options |= {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    with pytest.raises(OutputError, match=rf"holds a training with another .*`{name}` \(was .*, is .*\)"):
        train(groups, tiny_model_dir, finished, **options)


@pytest.mark.parametrize(("name", "value"), [("lora_r", 4), ("attn_implementation", "eager"), ("dtype", "bfloat16")])
def test_another_option_of_the_model_is_refused(groups, tiny_model_dir, finished, no_training, name, value):
    options = {name: value, **({"use_peft": True} if name == "lora_r" else {})}
    with pytest.raises(OutputError, match=rf"holds a training with another .*`{name}` \(was"):
        train(groups, tiny_model_dir, finished, model_options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_r": 64}, "`lora_r`: `use_peft` is off, so it would do nothing"),
        ({"use_dora": True}, "`use_dora`: `use_peft` is off"),
        ({"bnb_4bit_quant_type": "fp4"}, "`bnb_4bit_quant_type`: `load_in_4bit` is off"),
    ],
)
def test_options_of_the_model_that_would_do_nothing_are_refused(groups, tiny_model_dir, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        train(groups, tiny_model_dir, tmp_path, model_options=options)


LORA = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def adapter(groups, tiny_model_dir, tmp_path_factory):
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapter") / "d"
    train(groups, tiny_model_dir, folder, model_options=LORA, max_steps=1)
    return folder


@pytest.mark.parametrize("options", [{}, LORA], ids=["as it is", "with the options that made it"])
def test_an_adapter_is_trained_on(groups, adapter, tmp_path, options):
    train(groups, adapter, tmp_path / "d", model_options=options, max_steps=1)
    assert json.loads((tmp_path / "d" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_r": 64}, r"another `r` \(is 4, asked for 64\); leave the options of LoRA out, or merge it"),
        (
            {"lora_alpha": 8, "use_dora": True},
            r"another `lora_alpha` \(is 32, asked for 8\), `use_dora` \(is .*True",
        ),
        (
            {"lora_target_modules": ["q_proj", "k_proj"]},
            r"another `target_modules` \(is .*'v_proj'\], asked for \['k_proj', 'q_proj'",
        ),
    ],
)
def test_an_adapter_is_not_trained_on_with_other_settings_than_its_own(groups, adapter, tmp_path, options, message):
    with pytest.raises(ConfigError, match=rf"`use_peft`: `model` \(.*\) is an adapter.* {message}"):
        train(groups, adapter, tmp_path / "d", model_options={**LORA, **options})
    assert not (tmp_path / "d").exists()


def test_another_chat_template_in_the_same_file_is_refused(groups, tiny_model_dir, finished, tmp_path, no_training):
    template = tmp_path / "chat.jinja"
    template.write_text(CHAT_TEMPLATE)
    with pytest.raises(OutputError, match=r"another `chat_template_path` \(was None, is '.*chat.jinja'\)"):
        train(groups, tiny_model_dir, finished, chat_template_path=str(template))
    config = RRTFConfig(str(tmp_path / "d"), **OPTIONS, chat_template_path=str(template))
    before = training_settings("m", TrainArguments(str(groups)), config, ModelConfig())
    template.write_text(CHAT_TEMPLATE + " ")
    after = training_settings("m", TrainArguments(str(groups)), config, ModelConfig())
    assert [name for name in before if before[name] != after[name]] == ["chat_template_path_fingerprint"]


def test_a_model_that_was_trained_anew_in_its_folder_is_noticed(groups, tiny_model_dir, copied, tmp_path, no_training):
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    settings = json.loads((copied / SETTINGS_FILE).read_text())
    (copied / SETTINGS_FILE).write_text(json.dumps({**settings, "model": str(model)}))
    train(groups, model, copied)
    shutil.copy(copied / "model.safetensors", model)
    with pytest.raises(OutputError, match="another `model_fingerprint`"):
        train(groups, model, copied)


@pytest.mark.parametrize(
    "options",
    [
        {"logging_steps": 2, "report_to": ["tensorboard"], "run_name": "again"},
        {"save_steps": 2, "save_total_limit": 1},
        {"dataloader_num_workers": 1},
        {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 1},
        {"gradient_checkpointing": False, "dataset_num_proc": 2},
        {"max_steps": "3", "learning_rate": "1e-2"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_change_no_weight_may_differ(groups, tiny_model_dir, finished, no_training, options):
    assert train(groups, tiny_model_dir, finished, **options).steps == 3


def test_every_option_is_compared_or_has_its_reason_not_to_be(tmp_path):
    """The invariant of all the cases above, also of options that a later version of TRL or transformers brings."""
    for option in dataclasses.fields(RRTFConfig):
        if option.init and option.name != "load_best_model_at_end":
            config = RRTFConfig(str(tmp_path), bf16=False)
            before = config.deciding_options()
            setattr(config, option.name, "another")
            changed = {name for name, value in config.deciding_options().items() if value != before[name]}
            assert changed == ({option.name} - NOT_DECIDING), option.name
    compared = settings_of(ModelConfig(), without=("model_name_or_path",))
    assert set(compared) == {option.name for option in dataclasses.fields(ModelConfig)} - {"model_name_or_path"}


@pytest.mark.parametrize(
    "options",
    [{"load_best_model_at_end": True}, {"lr_scheduler_type": "reduce_lr_on_plateau", "save_strategy": "no"}],
    ids=["best checkpoint", "learning rate"],
)
def test_an_evaluation_that_chooses_decides(tmp_path, options):
    config = RRTFConfig(str(tmp_path), bf16=False, eval_strategy="steps", eval_steps=500, **options)
    assert set(config.deciding_options()) >= CHOOSE_BY_EVALUATION
    assert not set(RRTFConfig(str(tmp_path), bf16=False).deciding_options()) & CHOOSE_BY_EVALUATION
    assert CHOOSE_BY_EVALUATION <= NOT_DECIDING


def test_what_the_machine_fills_in_is_no_setting_and_json_is_read(tmp_path):
    here, there = RRTFConfig(str(tmp_path / "here")), RRTFConfig(str(tmp_path / "there"), use_cpu=True)
    assert here.deciding_options() == there.deciding_options()
    assert here.deciding_options()["bf16"] is None
    texts = RRTFConfig(str(tmp_path), bf16=False, model_init_kwargs='{"attn_implementation": "eager"}')
    assert texts.deciding_options()["model_init_kwargs"] == {"attn_implementation": "eager"}


def test_the_groups_that_are_shown_have_the_outcomes_of_the_file(groups, tiny_model_dir, tmp_path):
    import pyarrow.parquet

    row = {**ranked_row(2), "outcomes": ["passed", "failed"]}
    (tmp_path / "e.jsonl").write_text(json.dumps(row) + "\n")
    arguments = TrainArguments(str(groups), str(tiny_model_dir), str(tmp_path / "e.jsonl"), show_groups=1)
    options = {**OPTIONS, "max_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    run_train(arguments, RRTFConfig(str(tmp_path / "d"), **options), ModelConfig())
    (shown,) = (tmp_path / "d" / "ranked_groups").glob("*.parquet")
    assert [row["outcome"] for row in pyarrow.parquet.read_table(shown).to_pylist()] == ["passed", "failed"]


def test_options_of_another_version_stand_for_their_defaults(groups, tiny_model_dir, copied, no_training):
    settings = json.loads((copied / SETTINGS_FILE).read_text())
    del settings["adam_beta2"]
    (copied / SETTINGS_FILE).write_text(json.dumps({**settings, "an_option_that_went": 3}))
    train(groups, tiny_model_dir, copied)
    with pytest.raises(OutputError, match=r"another `adam_beta2` \(was 0.999, is 0.9\)"):
        train(groups, tiny_model_dir, copied, adam_beta2=0.9)


def test_processes_count_only_while_training_and_only_where_an_update_has_other_groups(groups, tiny_model_dir, copied):
    settings = json.loads((copied / SETTINGS_FILE).read_text())
    four = {**settings, "processes": 4, "groups_per_update": 4 * settings["groups_per_update"]}
    (copied / SETTINGS_FILE).write_text(json.dumps(four))
    train(groups, tiny_model_dir, copied)
    with pytest.raises(OutputError, match=r"another `gradient_accumulation_steps` \(was 1, is 2\)"):
        train(groups, tiny_model_dir, copied, gradient_accumulation_steps=2)
    (copied / RESULT_FILE).unlink()
    with pytest.raises(OutputError, match=r"another `processes` \(was 4, is 1\), `groups_per_update` \(was 8, is 2\)"):
        train(groups, tiny_model_dir, copied)
    assert train(groups, tiny_model_dir, copied, gradient_accumulation_steps=4).steps == 3


def test_the_callers_configuration_is_left_as_it_was(groups, tiny_model_dir, tmp_path):
    config = RRTFConfig(str(tmp_path / "d"), **{**OPTIONS, "max_steps": 1, "save_strategy": "no"})
    before = config.deciding_options()
    run_train(TrainArguments(str(groups), str(tiny_model_dir)), config, ModelConfig())
    assert config.deciding_options() == before
    assert config.model_init_kwargs is None
    run_train(TrainArguments(str(groups), str(tiny_model_dir)), config, ModelConfig())


# --- What is never touched -----------------------------------------------------------------------------------------------


def test_an_output_that_is_the_models_folder_is_refused(groups, copied, no_training):
    before = weights(copied)
    with pytest.raises(ConfigError, match=r"`output_dir`: .* would overwrite what `model` names"):
        train(groups, copied, copied)
    config, by_trls_name = RRTFConfig(str(copied), **OPTIONS), ModelConfig(model_name_or_path=str(copied))
    with pytest.raises(ConfigError, match=r"`output_dir`: .* would overwrite what `model` names"):
        run_train(TrainArguments(str(groups)), config, by_trls_name)
    with pytest.raises(OutputError, match="another `model`"):  # its checkpoints would be gone on from
        train(groups, copied / "checkpoint-3", copied)
    assert weights(copied) == before


def test_a_second_run_is_kept_away(groups, tiny_model_dir, copied, no_training):
    with output_lock(copied), pytest.raises(OutputError, match=r"is being written by another run \(process \d+ on"):
        train(groups, tiny_model_dir, copied)
    assert train(groups, tiny_model_dir, copied).steps == 3
    assert not list(copied.parent.glob("*.lock"))


@pytest.mark.parametrize("name", [SETTINGS_FILE, RESULT_FILE])
@pytest.mark.parametrize("content", [b"", b'{"steps": ', b"[]", b"\x00\x00"], ids=["empty", "cut", "list", "nul"])
def test_damaged_files_say_what_to_do(groups, tiny_model_dir, copied, name, content, no_training):
    (copied / name).write_bytes(content)
    with pytest.raises(OutputError, match=rf"{name}` is damaged.*; (remove it|choose another `output_dir`)"):
        train(groups, tiny_model_dir, copied)


def test_checkpoints_of_nobody_knows_what_are_not_gone_on_with(groups, tiny_model_dir, copied, no_training):
    for name in (SETTINGS_FILE, RESULT_FILE):
        (copied / name).unlink()
    with pytest.raises(OutputError, match=f"holds a training, but no {SETTINGS_FILE} that tells which"):
        train(groups, tiny_model_dir, copied)


# --- What it goes on from ------------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TEARS = {
    "no trainer_state.json": lambda folder: (folder / "trainer_state.json").unlink(),
    "an empty trainer_state.json": lambda folder: (folder / "trainer_state.json").write_bytes(b""),
    "half a trainer_state.json": lambda folder: cut(folder / "trainer_state.json"),
    "zeros for trainer_state.json": lambda folder: (folder / "trainer_state.json").write_bytes(bytes(4096)),
    "half of the weights": lambda folder: cut(folder / "model.safetensors"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "half of the optimizer": lambda folder: cut(folder / "optimizer.pt"),
    "half of the random state": lambda folder: cut(folder / "rng_state.pth"),
    "nothing at all": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
def test_a_torn_checkpoint_is_set_aside(groups, tiny_model_dir, finished, copied, tear, caplog):
    (copied / RESULT_FILE).unlink()
    (copied / "model.safetensors").unlink()
    tear(copied / "checkpoint-3")
    with caplog.at_level(logging.WARNING):
        summary = train(groups, tiny_model_dir, copied)
    assert "checkpoint-3` is not whole" in caplog.text
    assert (copied / "torn-checkpoint-3").is_dir()
    assert (copied / "checkpoint-3" / "trainer_state.json").is_file()
    assert summary.steps == 3
    assert weights(copied) == weights(finished)


def test_with_no_whole_checkpoint_it_starts_again(groups, tiny_model_dir, finished, copied):
    (copied / RESULT_FILE).unlink()
    for number in (1, 2, 3):
        (copied / f"checkpoint-{number}" / "trainer_state.json").unlink()
    (copied / "torn-checkpoint-3").mkdir()
    train(groups, tiny_model_dir, copied)
    assert {path.name for path in copied.glob("torn-*")} == {f"torn-checkpoint-{n}" for n in ("1", "2", "3", "3-2")}
    assert weights(copied) == weights(finished)


def test_a_torn_checkpoint_that_was_asked_for_is_named(groups, tiny_model_dir, copied, no_training):
    (copied / RESULT_FILE).unlink()
    (copied / "checkpoint-2" / "trainer_state.json").unlink()
    for name, reason in (("checkpoint-2", "trainer_state.json is missing"), ("checkpoint-9", "there is no such folder")):
        with pytest.raises(LoadError, match=rf"`resume_from_checkpoint`: .*{name}` cannot be gone on from \({reason}\)"):
            train(groups, tiny_model_dir, copied, resume_from_checkpoint=str(copied / name))


@pytest.mark.parametrize("given", ["true", "True", True])
def test_true_goes_on_from_the_newest_checkpoint(groups, tiny_model_dir, finished, copied, tmp_path, given):
    """As in the scripts of TRL and transformers."""
    (copied / RESULT_FILE).unlink()
    shutil.rmtree(copied / "checkpoint-3")
    assert train(groups, tiny_model_dir, copied, resume_from_checkpoint=given).steps == 3
    assert weights(copied) == weights(finished)
    with pytest.raises(LoadError, match=r"`resume_from_checkpoint`: there is no checkpoint in .* to go on from; leave it out"):
        train(groups, tiny_model_dir, tmp_path / "e", resume_from_checkpoint=given)
    train(groups, tiny_model_dir, tmp_path / "f", resume_from_checkpoint="false", max_steps=1)


def test_a_checkpoint_of_another_folder_decides_the_weights(groups, tiny_model_dir, finished, copied, tmp_path, monkeypatch):
    elsewhere = shutil.copytree(copied / "checkpoint-2", tmp_path / "checkpoint-2")
    train(groups, tiny_model_dir, tmp_path / "e", resume_from_checkpoint=str(elsewhere))
    assert weights(tmp_path / "e") == weights(finished)
    with pytest.raises(OutputError, match="another `resumed_from`"):
        train(groups, tiny_model_dir, tmp_path / "e")
    # Killed, it goes on from its own newest checkpoint and not from there again.
    (tmp_path / "e" / RESULT_FILE).unlink()
    seen = []
    monkeypatch.setattr(
        stage.RRTFTrainer, "train", lambda self, resume_from_checkpoint: seen.append(resume_from_checkpoint) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        train(groups, tiny_model_dir, tmp_path / "e", resume_from_checkpoint=str(elsewhere))
    assert seen == [str(tmp_path / "e" / "checkpoint-3")]


def test_a_checkpoint_without_an_optimizer_is_told(groups, tiny_model_dir, copied, caplog):
    (copied / RESULT_FILE).unlink()
    for folder in copied.glob("checkpoint-*"):
        (folder / "optimizer.pt").unlink()
    with caplog.at_level(logging.WARNING):
        train(groups, tiny_model_dir, copied, save_only_model=True)
    assert "holds no state of the optimizer" in caplog.text


def test_a_disk_that_is_full_while_the_optimizer_is_written(groups, tiny_model_dir, finished, tmp_path):
    """A real failing write: files may be larger than the weights, and not as large as the optimizer's state."""
    sizes = [(finished / "checkpoint-3" / name).stat().st_size for name in ("model.safetensors", "optimizer.pt")]
    assert sizes[0] + 20_000 < sizes[1]
    options = {"model": tiny_model_dir, "input": groups, "output_dir": tmp_path / "d"}
    options |= {**OPTIONS, "report_to": "none"}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    limit += f"; resource.setrlimit(resource.RLIMIT_FSIZE, ({sizes[0] + 10_000}, {sizes[0] + 10_000}))"
    code = f"{limit}; import sys; from trl_rrtf.cli import main; sys.exit(main(['train', *{arguments!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"trl-rrtf train: cannot write `{tmp_path / 'd'}`: " in done.stderr
    assert "free space or choose another output, and run the same command again" in done.stderr
    train(groups, tiny_model_dir, tmp_path / "d")
    assert weights(tmp_path / "d") == weights(finished)
