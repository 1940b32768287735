"""Bridges to other libraries, each an optional extra: ``sklearn``, ``onnx``, ``torch``, ``safetensors``."""
