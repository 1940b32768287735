"""ONNX: models written as ONNX files, and ONNX files as models or as teachers. Needs ``minidl[onnx]``.

::

    from minidl.interop.onnx import export, load, onnx_teacher
    export(model, "model.onnx")                          # run by onnxruntime and compared before it is kept
    model = load("model.onnx")                           # a Sequential, of a file that is a chain of known layers
    minidl.distill(onnx_teacher("teacher.onnx"), student, x, y)

``forms.py`` is the table of what each layer is in ONNX: `export` writes by it, and `load` recognises by it.
"""

from .exporting import export, to_onnx
from .loading import load
from .running import onnx_teacher

__all__ = ["export", "load", "onnx_teacher", "to_onnx"]
