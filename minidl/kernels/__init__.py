"""Every jitted function of minidl, and nothing else: arrays in, arrays out, no checks.

Inputs were validated at the public boundary. Outputs come first in each signature.
"""
