"""The process that holds the tests and decides."""
