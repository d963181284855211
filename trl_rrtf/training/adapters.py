"""Adapters that are trained on: their own settings decide, and those of the command line may not say something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl_rrtf.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftConfig

_COMPARED = ("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "bias", "modules_to_save")


def require_same_adapter(folder: str, asked: PeftConfig | None) -> None:
    """Refuses settings of LoRA that an adapter does not have: it is trained on as it is, as in the later rounds of a run.

    Args:
        folder: That of the adapter.
        asked: What the options of LoRA ask for; None where they ask for none.

    Raises:
        ConfigError: It names each setting, with both values.
    """
    if asked is None:
        return
    from peft import PeftConfig

    own = PeftConfig.from_pretrained(folder)
    changed = [
        f"`{name}` (is {theirs!r}, asked for {wanted!r})"
        for name in _COMPARED
        if (theirs := _plain(getattr(own, name, None))) != (wanted := _plain(getattr(asked, name, None)))
    ]
    # None stands for what PEFT finds, and one text for a pattern, or for all linear layers.
    if isinstance(asked.target_modules, list | set) and set(asked.target_modules) != set(own.target_modules or ()):
        changed.append(f"`target_modules` (is {sorted(own.target_modules or ())}, asked for {sorted(asked.target_modules)})")
    if changed:
        raise ConfigError(
            f"`use_peft`: `model` (`{folder}`) is an adapter, which is trained on as it is, and it has another "
            f"{', '.join(changed)}; leave the options of LoRA out, or merge it into its base model and give that"
        )


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, list | set | tuple) else value or None
