"""Models: where they lie, what ran them, and what they say of a fixed text."""
