"""Findings of `emix doctor`: one for each check, with what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: str  # ok, warning, problem
    text: str
    advice: str = ""
