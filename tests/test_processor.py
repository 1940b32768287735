"""What is written for other processors and systems, as machine code: by LLVM, which also has a generator for ARM."""

import importlib
import types as python_types

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from minidl.kernels import emit, processor
from minidl.kernels.jit import JIT_DISABLED

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="nothing is emitted")


@pytest.fixture
def written_for(monkeypatch):
    """The module `processor`, with its intrinsics as plain functions, as it is on another processor and system."""

    def load(arm, platform):
        with monkeypatch.context() as patch:
            patch.setattr(processor.sys, "platform", platform)
            patch.setattr("minidl.kernels.target.IS_ARM", arm)
            patch.setattr("minidl.kernels.target.IS_X86", not arm)
            patch.setattr(emit, "intrinsic", lambda result, plain=None: lambda write: write)
            spec = importlib.util.spec_from_file_location("minidl.kernels.elsewhere", processor.__file__)
            found = importlib.util.module_from_spec(spec)
            code = compile(open(processor.__file__).read().replace("@jit\n", ""), processor.__file__, "exec")
            exec(code, found.__dict__)
        return found

    return load


def machine_code(write, *kinds, triple="aarch64-linux-gnu"):
    """The assembly of a function whose body is written by ``write(builder, *arguments)``."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.IntType(64), list(kinds)), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    value = write(builder, *function.args)
    builder.ret(value if value is not None else emit.constant(0))
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return llvm.Target.from_triple(triple).create_target_machine().emit_assembly(parsed)


def calls(arguments):
    """Writes a call with arrays in the place of the first argument."""

    def write_with(function):
        def write(builder, start):
            array = python_types.SimpleNamespace(
                address=lambda index: builder.gep(start, [index], source_etype=emit.INT)
            )
            return function(builder, array, *map(emit.constant, arguments))

        return write

    return write_with


ARRAY = emit.INT.as_pointer()


def test_denormals_on_arm(written_for):
    arm = written_for(True, "linux")
    code = machine_code(arm._control_word) + machine_code(arm._set_control_word, emit.INT)
    assert "mrs\tx0, FPCR" in code and "msr\tFPCR, " in code
    assert arm._FLUSH == 1 << 24  # FZ
    assert written_for(False, "linux")._FLUSH == 0x8040


def test_a_pause_on_arm(written_for):
    assert "\tisb\n" in machine_code(written_for(True, "linux").pause)
    assert "\tpause\n" in machine_code(written_for(False, "linux").pause, triple="x86_64-linux-gnu")


# What is called, with the places in the array that the call is about.
CALLED = {
    "yield_cpu": ("sched_yield", "SwitchToThread", None),
    "clock": ("clock_gettime", "QueryPerformanceCounter", None),
    "lock": ("pthread_mutex_lock", "AcquireSRWLockExclusive", (2,)),
    "unlock": ("pthread_mutex_unlock", "ReleaseSRWLockExclusive", (2,)),
    "wake_all": ("pthread_cond_broadcast", "WakeAllConditionVariable", (2,)),
    "sleep_until_woken": ("pthread_cond_wait", "SleepConditionVariableSRW", (3, 2)),
}


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "aarch64-linux-gnu"])
@pytest.mark.parametrize("platform", ["linux", "win32"])
@pytest.mark.parametrize("name", CALLED)
def test_what_is_called_on_each_system(written_for, name, platform, triple):
    write = getattr(written_for(triple.startswith("aarch64"), platform), name)
    *functions, places = CALLED[name]
    if places is None:
        code = machine_code(write, triple=triple)
    else:
        code = machine_code(calls(places)(write), ARRAY, triple=triple)
    found = {function for names in CALLED.values() for function in names[:2] if function in code}
    assert found == {functions[platform == "win32"]}


def test_a_lock_and_a_condition_are_made_where_zeros_are_none(written_for):
    made = {
        platform: machine_code(calls((2, 3))(written_for(True, platform).make_waiting), ARRAY)
        for platform in ("darwin", "win32")
    }
    assert "pthread_mutex_init" in made["darwin"] and "pthread_cond_init" in made["darwin"]
    assert "init" not in made["win32"].lower().replace("cfi_", "")
