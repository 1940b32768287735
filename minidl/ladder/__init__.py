"""A fast matrix product, rung by rung, on this machine: ``python -m minidl ladder``.

Eight ways to compute ``c = a b``, each one idea faster than the one before. Each is checked against NumPy, timed, and
told: its speed beside what the processor can do at most, what changed, and what it now waits for. What it waits for
follows from figures that are measured here (`figures`, `waits`); the loops themselves are in `kernels.ladder`.
"""
