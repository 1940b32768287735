"""Your answers to chapter 1. Put numbers in the place of None, and lines in the place of each `raise`."""

# 1. The loss of an untrained net, to two decimals: with all weights 0 and 10 classes, with all weights 0 and 1,000
# classes, and with 10 classes where the logits of a row have variance 0.5 and know nothing of the label.
LOSS_10_CLASSES = None
LOSS_1000_CLASSES = None
LOSS_VARIANCE_HALF = None

# 2. How many parameters has 784-64-64-10?
PARAMETERS = None


def multiply_adds(sizes, rows):
    """2. The multiply-adds of the matrix products of one training step, with a batch of ``rows``.

    A product of (m, k) and (k, n) has m k n. Count forward, weight gradients, and those input gradients that are
    needed: nobody asks for the gradient of the data. ``sizes`` is a list as [784, 64, 64, 10].
    """
    raise NotImplementedError


def tanh_backward(dout, out):
    """3. The gradient with respect to x, where out = tanh(x)."""
    raise NotImplementedError
