"""Distillation: a teacher's softened answers as targets for a student.

``distill`` trains one student and reports how it compares with its teacher and, on request, with the same
student trained on labels alone. Its relatives are ``born_again`` (each generation teaches the next),
``mutual_learning`` (students that teach each other) and ``minidl.sweep.distill_sweep`` (many settings, several
seeds each).

A chain through a teacher assistant is two calls: ``distill(teacher, assistant, ...)``, ``distill(assistant,
student, ...)``.
"""

from ..losses import DIST as DIST
from ..losses import DecoupledKD as DecoupledKD
from ..losses import KnowledgeDistillation as KnowledgeDistillation
from ..losses import LogitMatching as LogitMatching
from ..losses import NormalizedKD as NormalizedKD
from ..report import DistillationReport as DistillationReport
from .distill import distill as distill
from .relatives import BornAgain as BornAgain
from .relatives import born_again as born_again
from .relatives import mutual_learning as mutual_learning
