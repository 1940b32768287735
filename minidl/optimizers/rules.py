"""The optimizers: each class has its own settings and names its update rule of ``kernels/updates.py``.

The formulas are Keras 3's. g is the gradient, lr the learning rate, t the step counted from 1.
"""

from typing import Any

from ..kernels import updates as kernel
from ..registry import Unpack
from ..validation import check_bool, check_float
from .base import OPTIMIZERS, CommonOptions, LimitsAndName, Optimizer
from .schedules import LearningRateSchedule


@OPTIMIZERS.register()
class SGD(Optimizer):
    """Gradient descent, with momentum (0 <= momentum <= 1) and Nesterov's look-ahead if wanted.

    ``w -= lr*g``; with momentum ``u = momentum*u - lr*g; w += u``; with nesterov the last is
    ``w += momentum*u - lr*g``. Other keywords: see ``Optimizer``.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *common: Any,
        **options: Unpack[CommonOptions],
    ):
        super().__init__(learning_rate, *common, **options)
        self.momentum = check_float("momentum", momentum, minimum=0, maximum=1)
        self.nesterov = check_bool("nesterov", nesterov)

    @property
    def kind(self) -> int:
        if self.momentum == 0:
            return kernel.SGD
        return kernel.NESTEROV if self.nesterov else kernel.MOMENTUM


class _WithMoments(Optimizer):
    """The settings of Adam, Nadam and Adamax."""

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *common: Any,
        **options: Unpack[CommonOptions],
    ):
        super().__init__(learning_rate, *common, **options)
        self.beta_1 = check_float("beta_1", beta_1, minimum=0, below=1)
        self.beta_2 = check_float("beta_2", beta_2, minimum=0, below=1)
        self.epsilon = check_float("epsilon", epsilon, minimum=0)


@OPTIMIZERS.register()
class Adam(_WithMoments):
    """Adam (Kingma & Ba 2015); ``amsgrad`` divides by the largest second moment so far.

    ``m += (1 - beta_1)*(g - m); v += (1 - beta_2)*(g*g - v)``,
    ``w -= lr * sqrt(1 - beta_2**t)/(1 - beta_1**t) * m / (sqrt(v) + epsilon)``: epsilon is added to the
    uncorrected root, the paper's "epsilon hat", as in Keras and unlike in PyTorch. Other keywords: see
    ``Optimizer``.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *common: Any,
        **options: Unpack[CommonOptions],
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, *common, **options)
        self.amsgrad = check_bool("amsgrad", amsgrad)

    @property
    def kind(self) -> int:
        return kernel.AMSGRAD if self.amsgrad else kernel.ADAM


@OPTIMIZERS.register()
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) on every parameter, biases included.

    ``w -= w * weight_decay * lr`` before Adam's step. Other settings: see ``Adam`` and ``Optimizer``.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *common: Any,
        **options: Unpack[LimitsAndName],
    ):
        if weight_decay is None:
            raise ValueError("weight_decay must be a number >= 0 for AdamW, got None")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, *common, **options)


@OPTIMIZERS.register()
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012): ``v = rho*v + (1 - rho)*g*g; w -= lr*g / sqrt(v + epsilon)``.

    ``centered`` divides by the root of the variance, ``v - mean(g)**2``, with the running mean of g. ``momentum``
    (plain) accumulates the steps. Other keywords: see ``Optimizer``.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        *common: Any,
        **options: Unpack[CommonOptions],
    ):
        super().__init__(learning_rate, *common, **options)
        self.rho = check_float("rho", rho, minimum=0, below=1)
        self.momentum = check_float("momentum", momentum, minimum=0, maximum=1)
        self.epsilon = check_float("epsilon", epsilon, minimum=0)
        self.centered = check_bool("centered", centered)

    @property
    def kind(self) -> int:
        if self.centered:
            return kernel.RMSPROP_CENTERED_MOMENTUM if self.momentum else kernel.RMSPROP_CENTERED
        return kernel.RMSPROP_MOMENTUM if self.momentum else kernel.RMSPROP


@OPTIMIZERS.register()
class Nadam(_WithMoments):
    """Adam with Nesterov's look-ahead (Dozat 2016), and a momentum that grows to beta_1.

    m and v as in ``Adam``; ``u_t = beta_1*(1 - 0.5*0.96**t)``, ``p = u_1*...*u_t``,
    ``w -= lr * (u_(t+1)*m/(1 - p*u_(t+1)) + (1 - u_t)*g/(1 - p)) / (sqrt(v/(1 - beta_2**t)) + epsilon)``.
    Other keywords: see ``Optimizer``.
    """

    kind = kernel.NADAM


@OPTIMIZERS.register()
class Adamax(_WithMoments):
    """Adam with the infinity norm (Kingma & Ba 2015).

    ``m += (1 - beta_1)*(g - m); u = max(beta_2*u, |g|); w -= lr/(1 - beta_1**t) * m / (u + epsilon)``.
    Other keywords: see ``Optimizer``.
    """

    kind = kernel.ADAMAX


@OPTIMIZERS.register()
class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011): ``a += g*g; w -= lr*g / sqrt(a + epsilon)``.

    a begins with ``initial_accumulator_value``. Other keywords: see ``Optimizer``.
    """

    kind = kernel.ADAGRAD

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        *common: Any,
        **options: Unpack[CommonOptions],
    ):
        super().__init__(learning_rate, *common, **options)
        value = check_float("initial_accumulator_value", initial_accumulator_value, minimum=0)
        self.initial_accumulator_value = value
        self.epsilon = check_float("epsilon", epsilon, minimum=0)


@OPTIMIZERS.register()
class Lion(Optimizer):
    """Lion (Chen et al. 2023): a step of lr in each direction, by the sign of two averages of the gradients.

    ``w -= lr*sign(beta_1*m + (1 - beta_1)*g); m = beta_2*m + (1 - beta_2)*g``. The authors take a learning rate 3 to
    10 times smaller than Adam's. Other keywords: see ``Optimizer``.
    """

    kind = kernel.LION

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        *common: Any,
        **options: Unpack[CommonOptions],
    ):
        super().__init__(learning_rate, *common, **options)
        self.beta_1 = check_float("beta_1", beta_1, above=0, maximum=1)
        self.beta_2 = check_float("beta_2", beta_2, minimum=0, maximum=1)
