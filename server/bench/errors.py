"""What ends a measurement.

BenchError
├── UseError      the command line asks for what cannot be measured; exit code 2
└── MeasureError  a process failed or something was not delivered; exit code 1
"""


class BenchError(Exception):
    """A measurement that came to nothing; the message is one line for the person at the terminal."""


class UseError(BenchError):
    """The command line asks for what cannot be measured."""


class MeasureError(BenchError):
    """A process failed, or an answer was not delivered as it was sent."""
