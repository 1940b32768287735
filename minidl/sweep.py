"""``distill_sweep``: many settings, several seeds each; see `minidl.distillation.sweep`."""

from .distillation.sweep import Sweep as Sweep
from .distillation.sweep import distill_sweep as distill_sweep
