"""Words, hashed, in a scikit-learn Pipeline: which module is a paragraph of documentation from? Needs scikit-learn.

    python examples/text_pipeline.py

`HashingVectorizer` makes a sparse row of word counts of each text and keeps no vocabulary. The rows stay sparse: the
net makes them dense a slice at a time. The texts are those every machine has, the docstrings of the modules below.
"""

from __future__ import annotations

import importlib
import inspect

try:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
except ImportError as error:
    raise ImportError("this example needs sklearn: pip install scikit-learn") from error

from minidl.interop.sklearn import MLPClassifier

MODULES = ("numpy", "numpy.linalg", "scipy.signal", "scipy.stats", "sklearn.metrics")


def paragraphs(module):
    """Each once: many stand in the docstrings of several functions."""
    of = importlib.import_module(module)
    found = [inspect.getdoc(getattr(of, name)) or "" for name in dir(of) if not name.startswith("_")]
    return sorted({part for text in found for part in text.split("\n\n") if len(part.split()) >= 8})


def main(modules=MODULES, features=2**14, epochs=20, most=1000):
    texts, labels = [], []
    for module in modules:
        some = paragraphs(module)[:most]
        texts += some
        labels += [module] * len(some)
    texts, test_texts, labels, test_labels = train_test_split(
        texts, labels, test_size=0.25, random_state=0, stratify=labels
    )

    accuracies = {}
    for name, classifier in {
        "logistic regression": LogisticRegression(max_iter=1000),
        "net": MLPClassifier(hidden_layer_sizes=(64,), max_iter=epochs, random_state=0),
    }.items():
        model = make_pipeline(HashingVectorizer(n_features=features, ngram_range=(1, 2)), classifier)
        model.fit(texts, labels)
        accuracies[name] = model.score(test_texts, test_labels)

    print(f"{len(texts)} paragraphs of {len(modules)} modules; accuracy on {len(test_texts)} others")
    for name, accuracy in accuracies.items():
        print(f"{name:<20} {accuracy:.3f}")
    return accuracies


if __name__ == "__main__":
    main()
