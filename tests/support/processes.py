"""Commands that a test interrupts."""

import subprocess


def interruptible(command: list[str]) -> "subprocess.Popen[str]":
    """Start a command that Ctrl-C reaches, also where the tests run as a background job."""
    return subprocess.Popen(
        # By a program: for a function of ours Python would fork, and gRPC does not survive that.
        ["env", "--default-signal=INT", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
