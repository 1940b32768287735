"""A layer as a user writes one, for tests of what such a layer may do."""

from minidl.layers import Layer


class Scale(Layer):
    """One gain a feature."""

    def build(self, input_shape):
        self.add_weight("gain", input_shape, initializer="ones")

    def forward(self, x, training=False):
        self.x = x
        return x * self.gain

    def backward(self, dout):
        self.dgain[...] = (dout * self.x).sum(axis=0)
        return dout * self.gain
