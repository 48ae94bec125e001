"""The errors of a benchmark.

BenchError
├── UseError      the command line is wrong; exit code 2
└── MeasureError  a process failed or events were not delivered; exit code 1
"""


class BenchError(Exception):
    """A benchmark failed; the message is one line for the terminal."""


class UseError(BenchError):
    """The command line is wrong."""


class MeasureError(BenchError):
    """A process failed, or an answer was not delivered completely and in order."""
