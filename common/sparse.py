"""Sparse rows through layers: pictures that are mostly zeros cost the first layer only their other pixels.

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


class Convolution(tl.layers.Conv2d):
    """TensorLayer's convolution, without padding, of square pictures: a product of its filters with a sparse matrix.

    A row of that matrix is a patch, size * size pixels of a picture. There are `places` of them along each side.
    """

    def __init__(self, side, n_filter, size, stride, act, **settings):
        super().__init__(n_filter, (size,) * 2, (stride,) * 2, act, padding="VALID", in_channels=1, **settings)
        self.side, self.places = side, (side - size) // stride + 1
        pixels = np.arange(side**2).reshape(side, side)
        patches = np.lib.stride_tricks.sliding_window_view(pixels, (size, size))[::stride, ::stride].ravel()
        order = patches.argsort(kind="stable")
        self.copies = tf.RaggedTensor.from_value_rowids(order, patches[order], side**2)  # of each pixel, in all patches

    def forward(self, pictures):
        """float32 [batch, side * side] or pictures [batch, (pixels)] -> float32 [batch, places, places, n_filter]."""
        where, value = _pixels(pictures)
        copies = tf.gather(self.copies, where[:, 1])
        picture, value = (tf.gather(x, copies.value_rowids()) for x in (where[:, 0], value))
        rows, width = self.places**2, self.W.shape[0] ** 2
        where = tf.stack([picture * rows + copies.values // width, copies.values % width], axis=1)
        n = tf.shape(pictures, tf.int64)[0]
        patches = tf.sparse.reorder(tf.SparseTensor(where, value, [n * rows, width]))
        z = _product(patches, tf.reshape(self.W, [width, self.n_filter]))
        return self.act(tf.reshape(z, [n, self.places, self.places, self.n_filter]) + self.b)


def convolve(pictures, filters, act, init):
    """TensorLayer's layers of the two convolutions of Mnih et al. (2013), from pictures to one row each.

    pictures: the layer of pictures, squares [batch, side * side].  filters: how many in the first and the second layer.
    act: the activation.  init(gain): an initialiser.
    """
    side, (first, second) = round(pictures.shape[1] ** 0.5), filters
    layer = Convolution(side, first, 8, 4, act, W_init=init(2**0.5), name="convolution_1")(pictures)
    settings = dict(padding="VALID", W_init=init(2**0.5), name="convolution_2")
    return tl.layers.Flatten()(tl.layers.Conv2d(second, (4, 4), (2, 2), act, **settings)(layer))


def _pixels(pictures) -> tuple:
    """Of all pixels that are not 0, one after the other: picture and place, int64 [n, 2], and value, float32 [n]."""
    if not isinstance(pictures, tf.RaggedTensor):
        where = tf.where(pictures)
        return where, tf.gather_nd(pictures, where)
    negative = pictures.values < 0
    place = tf.where(negative, ~pictures.values, pictures.values)
    where = tf.stack([pictures.value_rowids(), place], axis=1)
    return tf.cast(where, tf.int64), tf.where(negative, -1.0, 1.0)


def sparse_matmul(pictures: tf.RaggedTensor, b: tf.Tensor) -> tf.Tensor:
    """The product of pictures [n, (pixels)] of k pixels and b [k, m]: float32 [n, m], with a gradient for b."""
    where, sign = _pixels(pictures)
    return _product(tf.SparseTensor(where, sign, tf.stack([pictures.nrows(tf.int64), tf.shape(b, tf.int64)[0]])), b)


def _product(a: tf.SparseTensor, b: tf.Tensor) -> tf.Tensor:
    """a @ b, with a gradient for b: ten times as fast as `tf.sparse.sparse_dense_matmul`."""
    csr = tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=a.indices, values=a.values, dense_shape=a.dense_shape)
    transposed = tf.raw_ops.SparseMatrixTranspose(input=csr, type=tf.float32)  # with transpose_a sums come in any order

    @tf.custom_gradient
    def product(b):
        return tf.raw_ops.SparseMatrixMatMul(a=csr, b=b), lambda g: tf.raw_ops.SparseMatrixMatMul(a=transposed, b=g)

    return product(b)
