"""Training on ranked groups: configuration, collator, losses, trainer, model card."""
