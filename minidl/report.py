"""What ``distill`` reports, and the functions that measure it; see `minidl.distillation`."""

from .distillation.labels import as_labels as as_labels
from .distillation.measure import Figures as Figures
from .distillation.measure import calibration_bins as calibration_bins
from .distillation.measure import expected_calibration_error as expected_calibration_error
from .distillation.measure import latency as latency
from .distillation.measure import measure as measure
from .distillation.report import COLUMNS as COLUMNS
from .distillation.report import DistillationReport as DistillationReport
from .distillation.text import describe_layers as describe_layers
from .distillation.text import describe_loss as describe_loss
from .distillation.text import format_table as format_table
