"""What happened when a candidate met the tests: verdicts from real, contained processes. Never imports torch.

Deliberately empty: the workers import modules of this package, and each module more makes every fork of a candidate slower.
"""
