"""C: a model as one C99 file with its weights, for programs and small processors. Needs no package; a C compiler on
PATH is used to check the file.

::

    from minidl.interop.c import export
    export(model, "student.c")          # void student_predict(const float *x, float *out);
"""

from .exporting import Exported, export

__all__ = ["Exported", "export"]
