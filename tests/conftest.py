"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

# The first example of a property compiles kernels: a deadline would measure the compiler.
settings.register_profile("minidl", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("minidl")
