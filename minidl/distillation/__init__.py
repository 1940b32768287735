"""Distillation: a teacher's softened answers as targets for a student.

``distill`` trains one student and reports how it compares with its teacher and, on request, with the same
student trained on labels alone. Its relatives are ``born_again`` (each generation teaches the next),
``mutual_learning`` (students that teach each other) and ``minidl.sweep.distill_sweep`` (many settings, several
seeds each).

A chain through a teacher assistant is two calls: ``distill(teacher, assistant, ...)``, ``distill(assistant,
student, ...)``.
"""

from ..losses import DIST, DecoupledKD, KnowledgeDistillation, LogitMatching, NormalizedKD
from .distill import distill
from .relatives import BornAgain, born_again, mutual_learning
from .report import DistillationReport

__all__ = [
    "BornAgain",
    "DecoupledKD",
    "DIST",
    "DistillationReport",
    "KnowledgeDistillation",
    "LogitMatching",
    "NormalizedKD",
    "born_again",
    "distill",
    "mutual_learning",
]
