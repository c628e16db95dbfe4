"""Side by side with real peers, and the demo; scripts, not part of the package."""
