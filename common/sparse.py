"""Sparse rows through layers: pictures that are mostly zeros cost a dense layer only their other pixels.

A batch of pictures is a tf.RaggedTensor, int32 [batch, (pixels)]: of each picture the places where it is 1, and ~place
where it is -1. `tf.gather` takes minibatches of it as of any batch. XLA can't compile it.
"""

import numpy as np
import tensorflow as tf
import tensorlayer as tl


def ragged(pictures) -> tf.RaggedTensor:
    """A scipy.sparse.csr_array [batch, n] of 1 and -1 as a tensor."""
    places = np.where(pictures.data < 0, ~pictures.indices, pictures.indices).astype(np.int32)
    return tf.RaggedTensor.from_row_splits(places, pictures.indptr.astype(np.int32), validate=False)


class Dense(tl.layers.Dense):
    """TensorLayer's dense layer, which takes pictures as well as a tensor [batch, in]."""

    def forward(self, inputs):
        """float32 [batch, in] or pictures [batch, (pixels)] -> float32 [batch, n_units]."""
        if not isinstance(inputs, tf.RaggedTensor):
            return super().forward(inputs)
        z = sparse_matmul(inputs, tf.convert_to_tensor(self.W)) + self.b
        return self.act(z) if self.act else z


class Square(tl.layers.Layer):
    """Pictures as convolutions take them, float32 [batch, side, side, 1]."""

    def __init__(self, side: int):
        super().__init__()
        self.side, self._built = side, True

    def forward(self, inputs):
        """float32 [batch, side * side] or pictures [batch, (pixels)]."""
        if isinstance(inputs, tf.RaggedTensor):
            inputs = _filled(inputs, self.side**2)
        return tf.reshape(inputs, [-1, self.side, self.side, 1])


def convolve(pictures, filters, act, init):
    """TensorLayer's layers of the two convolutions of Mnih et al. (2013), from pictures to one row each.

    pictures: the layer of pictures, squares [batch, side * side].  filters: how many in the first and the second layer.
    act: the activation.  init(gain): an initialiser.
    """
    layer = Square(round(pictures.shape[1] ** 0.5))(pictures)
    for i, (n, size, stride) in enumerate(zip(filters, (8, 4), (4, 2), strict=True), 1):
        settings = dict(padding="VALID", W_init=init(2**0.5), name=f"convolution_{i}")
        layer = tl.layers.Conv2d(n, (size,) * 2, (stride,) * 2, act, **settings)(layer)
    return tl.layers.Flatten()(layer)


def _filled(pictures: tf.RaggedTensor, n: int) -> tf.Tensor:
    """Pictures of n pixels with their zeros, float32 [batch * n]."""
    row, place, sign = _pixels(pictures)
    return tf.scatter_nd((row * n + place)[:, None], sign, [pictures.nrows() * n])


def _pixels(pictures: tf.RaggedTensor) -> tuple:
    """Of all pixels that are not 0, one after the other: picture and place, int32, and 1 or -1, float32."""
    negative = pictures.values < 0
    place = tf.where(negative, ~pictures.values, pictures.values)
    return pictures.value_rowids(), place, tf.where(negative, -1.0, 1.0)


def sparse_matmul(pictures: tf.RaggedTensor, b: tf.Tensor) -> tf.Tensor:
    """The product of pictures [n, (pixels)] of k pixels and b [k, m]: float32 [n, m], with a gradient for b.

    It is ten times as fast as `tf.sparse.sparse_dense_matmul`.
    """
    row, place, sign = _pixels(pictures)
    where = tf.cast(tf.stack([row, place], axis=1), tf.int64)
    shape = tf.cast([pictures.nrows(), tf.shape(b, row.dtype)[0]], tf.int64)
    csr = tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=where, values=sign, dense_shape=shape)
    transposed = tf.raw_ops.SparseMatrixTranspose(input=csr, type=tf.float32)  # with transpose_a sums come in any order

    @tf.custom_gradient
    def product(b):
        return tf.raw_ops.SparseMatrixMatMul(a=csr, b=b), lambda g: tf.raw_ops.SparseMatrixMatMul(a=transposed, b=g)

    return product(b)
