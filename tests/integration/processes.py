"""Commands that a test interrupts."""

import signal
import subprocess


def interruptible(command: list[str]) -> "subprocess.Popen[str]":
    """Start a command that Ctrl-C reaches, also where the tests run as a background job."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
