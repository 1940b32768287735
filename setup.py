"""What setup.cfg cannot say: the README as an index of packages shows it."""

import re
from pathlib import Path

OF_THE_CHECKOUT = r"\[([^\]]*)\]\((?!\w+://|#)[^)\s]+\)"  # [text](path): an index has no file there


def on_an_index(readme: str) -> str:
    """``readme`` without what leads to files of the checkout: a picture becomes its description, a link its text."""
    return re.sub(OF_THE_CHECKOUT, r"\1", re.sub("!" + OF_THE_CHECKOUT, r"*\1*", readme))


if __name__ == "__main__":
    from setuptools import setup

    setup(long_description=on_an_index(Path("README.md").read_text(encoding="utf-8")))
