"""How the package is built: imports point one way, public names stay where users find them, files stay readable.

Imports are parsed, not run, so those inside functions count too.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import NamedTuple

import check
import pytest
import shape

import minidl

ROOT = Path(minidl.__file__).parent

# The floors of the house, lowest first. A room (a folder or a file of minidl/) may import from its own floor and
# from those below. A new room must be given its place here.
FLOORS = """
kernels
validation notices one_input registry archive datasets differences frames sparse tables pages
activations initializers regularizers constraints utils parameters
layers losses optimizers metrics callbacks warmup runtime machine
teachers
training
keras_methods model_files
models
gradcheck explain interpret plotting distillation figures report sweep ladder
interop info __main__ __init__
"""
ALONE = {"tiny"}  # imports nothing of minidl, and nothing imports it


# ---------------------------------------------------------------- imports


class Import(NamedTuple):
    file: str  # "teachers/cache.py", below minidl/
    line: int
    target: str  # "validation.py"

    def __str__(self) -> str:
        return f"minidl/{self.file}:{self.line} imports minidl/{self.target}"


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def read_sources() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in shape.files(ROOT)}


def find_imports(sources: dict[str, str]) -> list[Import]:
    """What each file imports of minidl. ``sources``: the text of each file, by its path below minidl/."""

    def locate(parts: list[str]) -> str | None:
        """The file of a module; None if there is none of that name."""
        names = ["/".join(parts) + ".py"] if parts else []
        return next((name for name in [*names, "/".join([*parts, "__init__.py"])] if name in sources), None)

    found = []
    for file, text in sources.items():
        package = file.split("/")[:-1]
        for node in ast.walk(ast.parse(text, file)):
            modules: list[list[str]] = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".") for alias in node.names]
                modules = [name[1:] for name in names if name[0] == "minidl"]
            elif isinstance(node, ast.ImportFrom):
                base = node.module.split(".") if node.module else []
                if node.level:
                    base = package[: len(package) - node.level + 1] + base
                elif base[0] == "minidl":
                    base = base[1:]
                else:
                    continue
                # `from .losses import base` names a file if there is one, else something inside minidl.losses
                named = [[*base, alias.name] for alias in node.names]
                modules = [name if locate(name) else base for name in named]
            targets = {locate(module) for module in modules} - {None, file}
            found += [Import(file, node.lineno, target) for target in sorted(targets)]
    return found


def find_upward(imports: list[Import]) -> list[str]:
    """Imports from a higher floor, and rooms that have no floor."""
    floor_of = {name: i for i, line in enumerate(FLOORS.strip().splitlines()) for name in line.split()}
    problems = []
    for found in imports:
        importer, imported = room(found.file), room(found.target)
        unknown = {importer, imported} - set(floor_of) - ALONE
        if unknown:
            problems.append(f"{found}: no floor is given for {', '.join(sorted(unknown))}")
        elif {importer, imported} & ALONE:
            problems.append(f"{found}: {', '.join(sorted(ALONE))} stands alone")
        elif floor_of[imported] > floor_of[importer]:
            problems.append(f"{found}: {importer} lies below {imported}")
    return problems


def find_circle(imports: list[Import]) -> list[str]:
    """The imports of one circle among files, in order; empty if there is none."""
    outgoing: dict[str, list[Import]] = {}
    for found in imports:
        outgoing.setdefault(found.file, []).append(found)
    finished: set[str] = set()

    def search(file: str, path: list[Import]) -> list[Import]:
        started = [step.file for step in path]
        if file in started:
            return path[started.index(file) :]
        if file not in finished:
            for step in outgoing.get(file, []):
                if circle := search(step.target, [*path, step]):
                    return circle
            finished.add(file)
        return []

    for file in outgoing:
        if circle := search(file, []):
            return [str(step) for step in circle]
    return []


def test_imports_point_one_way():
    imports = find_imports(read_sources())
    assert len(imports) > 100
    problems = find_upward(imports)
    assert not problems, "imports that point upwards:\n" + "\n".join(problems)


def test_no_circle_among_files():
    circle = find_circle(find_imports(read_sources()))
    assert not circle, "a circle of imports:\n" + "\n".join(circle)


MADE_UP = {
    "__init__.py": "from .models import Sequential\nfrom . import losses",
    "models.py": "import minidl.training.fit\nfrom .losses import MeanSquaredError",
    "training/__init__.py": "",
    "training/fit.py": "import numpy as np\nfrom ..losses import base\nfrom . import options",
    "training/options.py": "from .. import losses",
    "losses/__init__.py": "from .base import Loss",
    "losses/base.py": "from ..kernels.jit import jit",
    "kernels/jit.py": "import numba",
    "tiny.py": "import numpy",
}


def test_a_house_in_order_passes():
    imports = find_imports(MADE_UP)
    assert find_upward(imports) == [] and find_circle(imports) == []
    assert Import("training/fit.py", 2, "losses/base.py") in imports
    assert Import("training/options.py", 1, "losses/__init__.py") in imports
    assert Import("models.py", 1, "training/fit.py") in imports
    assert len(imports) == 9


@pytest.mark.parametrize(
    "file, text, problem",
    [
        (
            "losses/base.py",
            "def name(model):\n    from ..models import Sequential",
            "minidl/losses/base.py:2 imports minidl/models.py: losses lies below models",
        ),
        (
            "kernels/jit.py",
            "import numba\nimport minidl.losses",
            "minidl/kernels/jit.py:2 imports minidl/losses/__init__.py: kernels lies below losses",
        ),
        (
            "training/options.py",
            "from minidl import Sequential",
            "minidl/training/options.py:1 imports minidl/__init__.py: training lies below __init__",
        ),
        (
            "losses/base.py",
            "from .. import tiny",
            "minidl/losses/base.py:1 imports minidl/tiny.py: tiny stands alone",
        ),
        (
            "attic.py",
            "from . import losses",
            "minidl/attic.py:1 imports minidl/losses/__init__.py: no floor is given for attic",
        ),
    ],
)
def test_an_import_that_points_upwards_is_named(file, text, problem):
    assert problem in find_upward(find_imports(MADE_UP | {file: text}))


def test_a_circle_is_named():
    closed = MADE_UP | {"losses/base.py": "x = 1\nfrom . import get"}
    assert find_upward(find_imports(closed)) == []
    assert sorted(find_circle(find_imports(closed))) == [
        "minidl/losses/__init__.py:1 imports minidl/losses/base.py",
        "minidl/losses/base.py:2 imports minidl/losses/__init__.py",
    ]


# ---------------------------------------------------------------- public names

PUBLIC_NAMES = {
    "minidl": """
        Activation Adam AdamW CSVLogger Callback CosineDecay Dense DistillationReport Dropout EarlyStopping
        Ensemble ExponentialDecay Flatten GaussianNoise GradientError History Input KnowledgeDistillation L1 L1L2
        L2 LambdaCallback Layer LeakyReLU LearningRateScheduler MaxNorm ModelCheckpoint PiecewiseConstantDecay
        RMSprop RandomTranslation ReLU ReduceLROnPlateau Rescaling SGD Sequential Softmax TerminateOnNaN
        __version__ boltzmann born_again callbacks check_gradients clone_model constraints datasets distill
        distill_sweep get_num_threads initializers layers load_logits load_model log_softmax losses matmul metrics
        models mutual_learning optimizers plotting regularizers save_logits set_num_threads set_random_seed
        softmax teachers to_categorical utils warmup
        activations Adagrad Adamax BatchNormalization CosineDecayRestarts ELU InverseTimeDecay LayerNormalization Lion
        MinMaxNorm Model Nadam NonNeg Normalization PReLU PolynomialDecay UnitNorm explain""",
    "activations": """
        deserialize elu gelu gelu_tanh get leaky_relu linear relu serialize sigmoid silu softmax softplus swish tanh""",
    "callbacks": """
        CSVLogger Callback CallbackList EarlyStopping History LambdaCallback LearningRateScheduler
        ModelCheckpoint ProgressBar ReduceLROnPlateau TerminateOnNaN""",
    "constraints": """
        Constraint MaxNorm MinMaxNorm NonNeg UnitNorm deserialize get max_norm min_max_norm non_neg serialize
        unit_norm""",
    "datasets": "idx mnist read_idx",
    "datasets.idx": "MAX_BYTES read_idx",
    "datasets.mnist": "FILES MIRRORS cache_folder load_data load_subset",
    "distillation": """
        BornAgain DIST DecoupledKD DistillationReport KnowledgeDistillation LogitMatching NormalizedKD born_again
        distill mutual_learning""",
    "explain": "Explanation explain",
    "gradcheck": "GradientError check_gradients",
    "initializers": """
        Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity Initializer LecunNormal LecunUniform Ones
        Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros compute_fans constant deserialize
        get glorot_normal glorot_uniform he_normal he_uniform identity lecun_normal lecun_uniform ones orthogonal
        random_normal random_uniform serialize truncated_normal variance_scaling zeros""",
    "interop.c": "Exported export",
    "interop.onnx": "export load onnx_teacher to_onnx",
    "interop.safetensors": "load_safetensors save_safetensors",
    "interop.sklearn": "DistilledClassifier DistilledRegressor MLPClassifier MLPRegressor sklearn_teacher",
    "interop.keras": "from_keras keras_teacher to_keras",
    "interop.torch": "from_state_dict from_torch to_torch torch_teacher",
    "layers": """
        Activation BatchNormalization Dense Dropout ELU Flatten GaussianNoise Input Layer LayerNormalization LeakyReLU
        Normalization PReLU Parameter RandomTranslation ReLU Rescaling Softmax""",
    "losses": """
        BinaryCrossentropy BinaryFocalCrossentropy BinaryKnowledgeDistillation CategoricalCrossentropy
        CategoricalFocalCrossentropy CategoricalHinge CosineSimilarity DIST DecoupledKD DistillationLoss
        HalfMeanSquaredError Hinge Huber KLDivergence KnowledgeDistillation LogCosh LogitMatching Loss
        MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError
        NormalizedKD Poisson Ramp RegressionDistillation SparseCategoricalCrossentropy SquaredHinge
        TeacherBoundedRegression binary_crossentropy binary_focal_crossentropy boltzmann
        categorical_crossentropy categorical_focal_crossentropy categorical_hinge check_logits
        cosine_similarity deserialize get half_mean_squared_error hinge huber kl_divergence log_cosh
        log_softmax mean_absolute_error mean_absolute_percentage_error mean_squared_error
        mean_squared_logarithmic_error poisson serialize softmax sparse_categorical_crossentropy
        squared_hinge""",
    "metrics": """
        AUC Accuracy BinaryAccuracy BinaryCrossentropy CategoricalAccuracy CategoricalCrossentropy CategoricalHinge
        CosineSimilarity F1Score FBetaScore FunctionMetric Hinge KLDivergence LogCoshError MeanAbsoluteError
        MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Metric Poisson Precision R2Score
        Recall RootMeanSquaredError SparseCategoricalAccuracy SparseCategoricalCrossentropy
        SparseTopKCategoricalAccuracy SquaredHinge TopKCategoricalAccuracy binary_accuracy binary_crossentropy
        categorical_accuracy categorical_crossentropy categorical_hinge deserialize get get_all hinge huber
        kl_divergence log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error
        mean_squared_logarithmic_error poisson serialize sparse_categorical_accuracy sparse_categorical_crossentropy
        sparse_top_k_categorical_accuracy squared_hinge top_k_categorical_accuracy""",
    "models": "Model Sequential clone_model load_model model_from_json",
    "optimizers": """
        Adagrad Adam AdamW Adamax Lion Nadam Optimizer RMSprop SGD deserialize get schedules serialize""",
    "optimizers.schedules": """
        CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay LearningRateSchedule
        PiecewiseConstantDecay PolynomialDecay deserialize serialize""",
    "plotting": "confusion learning_curves reliability softened_probabilities sweep",
    "regularizers": "L1 L1L2 L2 Regularizer deserialize get l1 l1_l2 l2 serialize",
    "report": """
        DistillationReport Figures as_labels calibration_bins describe_layers describe_loss
        expected_calibration_error format_table latency measure""",
    "runtime": "get_num_threads matmul set_num_threads warmup",
    "sweep": "Sweep distill_sweep",
    "teachers": """
        ArrayTeacher CallableTeacher Ensemble InputsTeacher ModelTeacher Teacher as_teacher cached_logits fingerprint
        load_logits save_logits""",
    "utils": "next_seed set_random_seed to_categorical",
}
"""What users may import from where, as it has been since version 0.1. Helpers the package has for itself alone
are not in it. A name may be added; taking one away breaks somebody's program."""

NEEDS = {"interop.sklearn": "sklearn"}  # what importing the module itself takes


def missing_names(place: str, names: str) -> list[str]:
    module = importlib.import_module("minidl" if place == "minidl" else f"minidl.{place}")
    return [name for name in names.split() if not hasattr(module, name)]


@pytest.mark.parametrize("place", PUBLIC_NAMES)
def test_public_names_are_where_users_find_them(place):
    if place in NEEDS:
        pytest.importorskip(NEEDS[place])
    assert missing_names(place, PUBLIC_NAMES[place]) == []


def test_all_lists_every_public_name_of_minidl():
    assert set(PUBLIC_NAMES["minidl"].split()) <= set(minidl.__all__)


def test_a_missing_name_is_seen():
    assert missing_names("losses", "DIST no_such_loss") == ["no_such_loss"]


# ---------------------------------------------------------------- sizes


def test_no_file_is_too_long_to_read():
    too_long = [
        f"{file.name}: {file.lines} lines"
        for file in shape.measure(ROOT).files
        if file.lines > shape.FILE_LINES
    ]
    assert not too_long, f"files of more than {shape.FILE_LINES} lines; split by idea: {too_long}"


def test_shape_counts_what_it_says(tmp_path):
    (tmp_path / "_rooms").mkdir()
    (tmp_path / "_rooms" / "a.py").write_text(
        "class Big:\n    def __init__(self, a, b):\n        pass\n\n"
        "    def _inner(self, a, b, c, *, d, e, f, g, h, i):\n        '''Two\n        lines.'''\n        return a\n\n\n"
        "def helper(a, *rest, b=1, **more):\n    return a\n"
    )
    (tmp_path / "b.py").write_text("x = 1\n")
    measured = shape.measure(tmp_path)
    assert [(file.name, file.lines) for file in measured.files] == [("_rooms/a.py", 12), ("b.py", 1)]
    functions = {function.name.split(":")[-1]: function for function in measured.functions}
    assert [(name, f.lines, f.parameters) for name, f in functions.items()] == [
        ("Big._inner", 4, 9),
        ("helper", 2, 4),
        ("Big.__init__", 2, 2),
    ]
    assert functions["Big._inner"].internal and not functions["helper"].internal
    shown = shape.describe(measured)
    assert "13 lines" in shown and "1 internal functions of more parameters than 8" in shown


# ---------------------------------------------------------------- the one command that checks everything


def test_check_runs_every_check_and_names_what_failed(monkeypatch, capfd):
    monkeypatch.setattr(check, "CHECKS", ["no_such_tool", "platform"])
    assert check.main([]) == 1
    shown = capfd.readouterr().out
    assert "+ platform" in shown and shown.endswith("failed: no_such_tool\n")
    monkeypatch.setattr(check, "CHECKS", ["platform"])
    assert check.main([]) == 0
    assert capfd.readouterr().out.endswith("all checks passed\n")
