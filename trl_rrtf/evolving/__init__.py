"""Evol-Instruct: harder problems, with tests written by a teacher and checked by the judge."""
