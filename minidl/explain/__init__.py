"""A training step in slow motion: every number of it, as text and as a page.

``step`` takes the steps and keeps their numbers, ``loss``, ``distillation`` and ``update`` say what they mean in
sections of formulas, matrices and tables (``document``), ``text`` and ``page`` show these.
"""

from .explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
