"""Rows: the formats that stages read and write, their files, and how a problem becomes a prompt."""
