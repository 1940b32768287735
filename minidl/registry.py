"""Classes found by name, and objects that are rebuilt from a class name and their constructor's arguments.

`Configurable` derives ``get_config`` from the constructor, so a class writes its arguments once::

    OPTIMIZERS = Registry("optimizer", Optimizer)

    @OPTIMIZERS.register("momentum_sgd")        # further names beside "SGD" and "sgd"
    class SGD(Optimizer):                       # Optimizer is a Configurable
        def __init__(self, momentum: float = 0.0, **options):
            super().__init__(**options)         # get_config() adds the base's arguments, first
            self.momentum = check_float("momentum", momentum)

    OPTIMIZERS.get("sgd")

A class joins a registry by the decorator only. A user's subclass does not: a file is built from minidl's own
classes and from those the user names in ``custom_objects``.
"""

import abc
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .validation import describe, known_names, shorten, unknown_name

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack  # in typing since Python 3.11
else:
    Unpack = dict  # only type checkers read ``**options: Unpack[...]``

_Base = TypeVar("_Base")
_Class = TypeVar("_Class", bound=type)


def snake_case(name: str) -> str:
    """``GlorotUniform`` -> ``glorot_uniform``, ``L1L2`` -> ``l1_l2``, as Keras spells its string names."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


@functools.cache
def constructor_arguments(cls: type) -> dict[str, type]:
    """The keywords ``cls(...)`` takes, each with the class whose ``__init__`` declares it, bases first.

    An ``__init__`` with ``**kwargs`` also takes the keywords of the next ``__init__`` among the bases.
    """
    found: dict[str, type] = {}
    for owner in cls.__mro__[:-1]:
        if "__init__" not in vars(owner):
            continue
        parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found = {**{name: owner for name in named if name not in found}, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def is_minidls(cls: type) -> bool:
    """Whether a class is the package's own, and no user's."""
    return cls.__module__.startswith(f"{__package__}.")


@functools.cache
def _attributes_of(cls: type) -> tuple[type, set[str], set[str]]:
    """minidl's own class that ``cls`` is or derives from, the settings that this class fixes, what a user's adds."""
    ours = [base for base in cls.__mro__[:-1] if is_minidls(base)]
    settings = {name for base in ours for name in constructor_arguments(base)}
    added = {name for base in cls.__mro__[:-1] if base not in ours for name in vars(base)}
    return ours[0], settings - constructor_arguments(ours[0]).keys(), added


def overridden(thing: object, *methods: str) -> str | None:
    """The first of ``methods`` that a class of the user's defines: minidl's kernels know nothing of it."""
    for method in methods:
        owner = next((cls for cls in type(thing).__mro__ if method in vars(cls)), None)
        if owner is not None and not is_minidls(owner):
            return method
    return None


def refuse_overridden(thing: object, *methods: str) -> None:
    """A TypeError if a class of the user's overrides one of ``methods``, which training would pass over."""
    method = overridden(thing, *methods)
    if method is not None:
        name = type(thing).__name__
        raise TypeError(f"{name} overrides {method}, which training does not call: it runs minidl's kernels")


_OF_KERAS = "call", "__call__", "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics"


def refuse_uncalled(thing: object, instead: str) -> None:
    """A TypeError for a layer or model whose class computes in Keras's method, which nothing here calls."""
    method = overridden(thing, *_OF_KERAS)
    if method is not None:
        raise TypeError(f"{type(thing).__name__} defines {method}, which is never called: override {instead}")


def check_kind(thing: object, kind: object, known: Iterable) -> None:
    """A ValueError if ``kind``, the number of a kernel, is none of ``known``: a class of the user's gives its own."""
    if kind not in list(known):
        names = ", ".join(f"{code.name} ({int(code)})" for code in known)
        raise ValueError(
            f"kind of {type(thing).__name__} must be the number of one of minidl's kernels, {names}, got {kind!r}"
        )


class _Sealing(abc.ABCMeta):
    """Tells each object when its construction is finished."""

    if not TYPE_CHECKING:

        def __call__(cls, *args, **kwargs):
            thing = super().__call__(*args, **kwargs)
            vars(thing)["_is_constructed"] = True
            return thing


class Sealed(metaclass=_Sealing):
    """Once constructed, it takes no new attribute, which would be a misspelt setting, unless the name begins with "_".

    A setting that is changed goes through its constructor's checks.
    """

    _is_constructed = False

    def __init_subclass__(cls, **kwargs) -> None:
        """Let ``help`` and notebooks show the bases' arguments in the place of ``*common, **options``."""
        super().__init_subclass__(**kwargs)
        has_own = cls.__init__ is not object.__init__
        own = list(inspect.signature(cls.__init__).parameters.values())[1:] if has_own else []
        by_position = any(p.kind is p.VAR_POSITIONAL for p in own)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if by_position else inspect.Parameter.KEYWORD_ONLY
        shown = {p.name: p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        for name, owner in constructor_arguments(cls).items():
            inherited = inspect.signature(owner.__init__).parameters[name]
            # an argument without default is one that the subclass gives its base itself
            if name not in shown and inherited.default is not inherited.empty:
                shown[name] = inherited.replace(kind=kind)
        cls.__signature__ = inspect.Signature(list(shown.values()))

    def __setattr__(self, name: str, value: object) -> None:
        is_new = self._is_constructed and name[:1] != "_" and vars(self).get(name, vars) is not value
        if is_new and not isinstance(getattr(type(self), name, None), property):
            value = self._checked(name, value)
        super().__setattr__(name, value)

    def _checked(self, name: str, value: object) -> object:
        """The attribute ``name`` of an object that is made like this one with ``value``."""
        owner, fixed, free = _attributes_of(type(self))
        settings = constructor_arguments(owner)
        if name in settings:
            given = {setting: getattr(self, setting) for setting in settings if hasattr(self, setting)}
            return getattr(owner(**given | {name: value}), name)
        if name in fixed or not (name in free or name in vars(self)):
            raise AttributeError(
                f"{type(self).__name__} has no setting {name!r}: {known_names(name, settings)}. (A subclass makes "
                "further attributes in its __init__, or begins their names with '_'.)"
            )
        return value


class Configurable(Sealed):
    """An object made again by ``from_config(get_config())``.

    A subclass keeps each argument of its constructor as an attribute of the same name. An argument kept in
    another form needs a ``get_config`` that says so: ``{**super().get_config(), "rate": self._rate}``.
    """

    not_in_config: frozenset[str] = frozenset()
    """Arguments that ``get_config`` leaves out: a second spelling, or one that a subclass fixes."""

    def __new__(cls, *args, **kwargs):
        """Refuse an unknown keyword in the name of the class that was called, not of the base that would see it."""
        if is_minidls(cls):
            known = constructor_arguments(cls)
            for name in kwargs.keys() - known.keys():
                what = f"{cls.__name__}() got an unexpected keyword argument {name!r}"
                raise TypeError(f"{what}: {known_names(name, known)}")
        return super().__new__(cls)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments by name; objects among them as ``{"class_name", "config"}``."""
        config = {}
        for argument in constructor_arguments(type(self)):
            if argument not in self.not_in_config and hasattr(self, argument):
                value = getattr(self, argument)
                config[argument] = _class_and_config(value) if isinstance(value, Configurable) else value
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """A new object from what ``get_config`` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"


def serialize(thing: Configurable | None) -> dict[str, Any] | None:
    """``{"class_name", "config"}``; None stays None.

    Raises TypeError if an argument of the constructor would be lost or another: the object has no attribute of its
    name, or one that does not make it again, and no class from the one that declares the argument on down defines
    ``get_config``.
    """
    if thing is None:
        return None
    cls = type(thing)
    for argument, owner in constructor_arguments(cls).items():
        if argument in cls.not_in_config:
            continue
        # a plain attribute of the class is a default, and not what this object was made with
        if argument in vars(thing) or hasattr(getattr(cls, argument, None), "__get__"):
            value = getattr(thing, argument)
            if isinstance(value, Configurable):
                serialize(value)  # raises, if it must
            continue
        heirs = cls.__mro__[: cls.__mro__.index(owner) + 1]
        if not any("get_config" in vars(heir) for heir in heirs if heir is not Configurable):
            raise TypeError(
                f"{cls.__name__} cannot be saved: its constructor takes {argument!r}, but the object has no "
                f"attribute of that name. Write self.{argument} = {argument} there, or define get_config"
            )
    if not is_minidls(cls) and overridden(thing, "get_config", "from_config") is None:
        _check_made_again(thing)
    return _class_and_config(thing)


def _check_made_again(thing: Configurable) -> None:
    """A TypeError if the constructor, given the attributes of its arguments' names, makes another object of them."""
    cls = type(thing)
    given = {
        name: getattr(thing, name) for name in constructor_arguments(cls) if name not in cls.not_in_config
    }
    try:
        again = cls(**given)
    except Exception as error:
        what = f"{cls.__name__} cannot be saved: its constructor does not take what it was given, {given}"
        raise TypeError(f"{what} ({error}). Define get_config") from error
    for name, value in given.items():
        if repr(getattr(again, name)) != repr(value):
            raise TypeError(
                f"{cls.__name__} cannot be saved: made again with {name}={value!r}, it has {getattr(again, name)!r}. "
                f"Write self.{name} = {name} there, or define get_config"
            )


def _class_and_config(thing: Configurable) -> dict[str, Any]:
    return {"class_name": type(thing).__name__, "config": thing.get_config()}


def function_config(name: str) -> dict[str, Any]:
    """A function of the user's as plain data, by its name, under which ``custom_objects`` have it."""
    return {"class_name": name, "config": {}}


def own_function(kind: str, config: Any) -> Callable:
    """The function of a loss's or metric's ``config``, once ``custom_objects`` have put it in the place of its name.

    Raises ValueError, naming the function, if they have not.
    """
    function = config.get("function") if isinstance(config, dict) else None
    if not callable(function):
        name = function.get("class_name") if isinstance(function, dict) else function
        raise ValueError(f"{kind} {name} is a function of your own: pass custom_objects={{{name!r}: {name}}}")
    return function


def function_of(cls: type, run: Callable, leave_out: tuple[str, ...] = ("name",)) -> Callable:
    """``function(y_true, y_pred, ...)`` that returns ``run(cls(...), y_true, y_pred)``: a class in one call.

    Its further arguments are the constructor's except ``leave_out``. Name, signature and docstring are made from the
    class: ``CategoricalAccuracy`` gives ``categorical_accuracy``.
    """
    name = snake_case(cls.__name__)
    own = [p for p in inspect.signature(cls).parameters.values() if p.name not in leave_out]
    both = [inspect.Parameter(y, inspect.Parameter.POSITIONAL_OR_KEYWORD) for y in ("y_true", "y_pred")]
    signature = inspect.Signature([*both, *own])

    def function(*args, **kwargs):
        try:
            settings = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        y_true, y_pred = settings.pop("y_true"), settings.pop("y_pred")
        return run(cls(**settings), y_true, y_pred)

    function.__module__, function.__name__, function.__qualname__ = cls.__module__, name, name
    function.__doc__ = f"The value of each sample: see `{cls.__name__}`.\n\n{inspect.getdoc(cls)}"
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


class Registry(Generic[_Base]):
    """minidl's own classes of one kind, by name: ``classes`` by their own, ``names`` by every spelling and alias.

    argument : what error messages call such an object: "initializer".
    base : the class they derive from; a user's own object of it passes through ``get``.
    spellings : functions of the class's ``__name__``, each giving a name it is known by: itself and in snake case.
    """

    def __init__(
        self,
        argument: str,
        base: type[_Base],
        spellings: tuple[Callable[[str], str], ...] = (str, snake_case),
    ):
        self.argument, self.base, self.spellings = argument, base, spellings
        self.classes: dict[str, type[_Base]] = {}
        self.names: dict[str, type[_Base]] = {}

    def register(self, *aliases: str) -> Callable[[_Class], _Class]:
        """The decorator by which a class joins, with further names it is known by."""

        def join(cls: _Class) -> _Class:
            self.classes[cls.__name__] = cls
            for name in (*(spell(cls.__name__) for spell in self.spellings), *aliases):
                if self.names.setdefault(name, cls) is not cls:
                    raise ValueError(f"{self.argument} {name!r} is {self.names[name].__name__} already")
            return cls

        return join

    def get(self, identifier, argument: str | None = None) -> _Base | None:
        """The object meant by a name, a class, a ``{"class_name", "config"}`` or an object of the base class.

        Only registered classes are built from a name or a config. None stays None. ``argument``: another name in
        error messages. Raises ValueError for an unknown name (with the nearest known one) or a malformed config,
        TypeError for anything else.
        """
        argument = argument or self.argument
        if identifier is None or isinstance(identifier, self.base):
            return identifier
        if isinstance(identifier, type) and issubclass(identifier, self.base):
            return identifier()
        if not isinstance(identifier, (str, dict)):
            expected = f"a name, a config or {self.base.__name__}"
            raise TypeError(f"{argument} must be {expected}, got {describe(identifier)}")
        node = {"class_name": identifier} if isinstance(identifier, str) else identifier
        name, config = node.get("class_name"), node.get("config", {})
        if not isinstance(name, str) or not isinstance(config, dict):
            raise ValueError(
                f"{argument} as a dict must have 'class_name' (string) and 'config' (dict), got {shorten(node)}"
            )
        if name not in self.names:
            yours = f"; a class of your own goes into custom_objects={{{name!r}: {name}}}"
            raise ValueError(
                f"{unknown_name(argument, name, self.names)}{yours if node is identifier else ''}"
            )
        cls = self.names[name]
        return cls.from_config(config) if node is identifier else cls()

    deserialize = get  # the inverse of ``serialize``
