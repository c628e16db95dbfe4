"""Files as versions of emix wrote them, opened by every later version.

`python -m tests.vectors.make NAME` makes a folder of them, once: what is there is never made again.
"""
