"""What makes small updates quick: weights in one variable, Adam on it, and arguments that are handed over together."""

import gc
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorlayer as tl

from common import checkpoint, weights
from common.acting import MLP
from common.adam import Adam
from common.compiling import _pack, _unchecked, compiled
from common.vectors import Part, join, one_variable

STATES = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


def network(seed=0):
    inputs = layer = tl.layers.Input([None, 3], tf.float32)
    for units, name in (4, "hidden_1"), (2, "output"):
        init = tf.initializers.GlorotUniform(seed=seed + units)
        layer = tl.layers.Dense(units, tf.nn.tanh, W_init=init, b_init=init, name=name)(layer)
    model = tl.models.Model(inputs, layer)
    model.train()
    return model


def test_a_model_in_one_variable_computes_what_it_did():
    plain, model = network(), network()
    vector, scale = one_variable(model, tf.Variable([1.0, 3.0], name="scale"))
    assert vector.shape == (3 * 4 + 4 + 4 * 2 + 2 + 2,)
    np.testing.assert_array_equal(model(STATES), plain(STATES))
    np.testing.assert_array_equal(MLP(model)(STATES), MLP(plain)(STATES))
    assert [(w.name, w.shape) for w in model.all_weights] == [(w.name, w.shape) for w in plain.all_weights]
    factor = tf.Variable([1.0, 3.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(plain(STATES) ** 2 * factor)
    expected = join(tape.gradient(loss, [*plain.trainable_weights, factor]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(STATES) ** 2 * scale)
    np.testing.assert_allclose(tape.gradient(loss, vector), expected, rtol=1e-5)


def test_parts_and_variable_are_one():
    model = network()
    vector, scale = one_variable(model, tf.Variable([1.0, 3.0], name="scale"))
    before, last = vector.numpy(), model.trainable_weights[-1]
    scale.assign(np.array([5.0, 7.0]))  # float64, as tf.Variables take it
    last.assign([0.5, -0.5])
    np.testing.assert_array_equal(vector.numpy(), [*before[:-4], 0.5, -0.5, 5, 7])
    vector.assign(tf.range(28.0))
    np.testing.assert_array_equal(last, [24, 25])
    np.testing.assert_array_equal(model.trainable_weights[2].numpy(), np.arange(16, 24).reshape(4, 2))
    np.testing.assert_array_equal(scale, [26, 27])
    np.testing.assert_allclose(
        model(STATES),
        np.tanh(
            np.tanh(STATES @ np.arange(12).reshape(3, 4) + np.arange(12, 16)) @ np.arange(16, 24).reshape(4, 2)
            + [24, 25]
        ),
        rtol=1e-5,
    )


@pytest.mark.parametrize("hdf5", [False, True])
def test_files_are_those_of_a_model_with_variables_of_its_own(tmp_path, hdf5):
    plain, model, again = network(1), network(2), network(3)
    vector, scale = one_variable(model, tf.Variable([1.0, 3.0], name="scale"))
    weights.save(tmp_path, hdf5, net=[plain, tf.Variable([2.0, 4.0], name="scale")])
    weights.load(tmp_path, net=[model, scale])
    np.testing.assert_array_equal(vector, [*join(plain.trainable_weights), 2, 4])
    weights.save(tmp_path, hdf5, net=[model, scale])
    weights.load(tmp_path, net=[again, tf.Variable([0.0, 0.0], name="scale")])
    np.testing.assert_array_equal(again(STATES), plain(STATES))


def test_a_checkpoint_brings_back_variable_parts_and_adam():
    class Agent:
        __module__ = "common"

        def __init__(self, seed):
            self.model = network(seed)
            self.theta, self.log_std = one_variable(self.model, tf.Variable([0.0], name="log_std"))
            self.optimizer = Adam(self.theta)

    one, other = Agent(1), Agent(2)
    assert isinstance(one.log_std, Part)
    for _ in range(3):
        one.optimizer.apply(tf.range(27.0), 0.1)
    state = checkpoint.collect(agent=one)
    assert sum(array.size == 27 for array in state.values()) == 2  # the agent's and its optimiser's, no part of it
    assert sum(array.size for array in state.values()) < 120
    checkpoint.restore(state, "here", agent=other)
    for agent in (one, other):
        agent.optimizer.apply(-tf.ones(27), 0.1)
    np.testing.assert_array_equal(one.theta, other.theta)
    assert one.optimizer.iterations == other.optimizer.iterations == 4


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_adam_is_keras_adam(jit_compile):
    rng, start = np.random.default_rng(0), tf.constant([1.0, -2.0, 3.0, 0.0])
    ours, theirs = tf.Variable(start), tf.Variable(start)
    adam, keras_adam = Adam(ours), tf.optimizers.Adam(0.1)
    keras_adam.build([theirs])
    apply = adam.apply if jit_compile is None else tf.function(adam.apply, jit_compile=jit_compile)
    for step in range(30):
        gradient = (rng.standard_normal(4) * [1e-6, 1, 100, 0]).astype(np.float32)
        rate = 0.1 / (step + 1)
        apply(tf.constant(gradient), tf.constant(rate))
        keras_adam.learning_rate.assign(rate)
        keras_adam.apply([tf.constant(gradient)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert np.abs(ours - start)[:3].min() > 0.01 and ours[3] == 0
    assert adam.iterations == 30


class Sum:
    """An object whose compiled method takes arrays of several types and shapes."""

    def __init__(self, scale=2.0):
        self.scale = scale

    @compiled
    def weighted(self, x, index, word, y, flag, z):
        assert word == "a constant"
        return x * self.scale, tf.gather(y, index), tf.cast(flag, tf.float32) + z, index


def test_arguments_arrive_in_their_own_types_and_shapes():
    x, y, z = np.float32([[1, 2, 3], [4, 5, 6]]), np.arange(4.0), np.float32(0.5)
    index, flag = np.int32([[3], [1]]), np.array([True, False])
    for _ in range(2):  # the first call compiles
        x_, y_, z_, index_ = Sum().weighted(x, index, "a constant", y, flag, z)
        np.testing.assert_array_equal(x_, 2 * x)
        np.testing.assert_array_equal(y_, [[3], [1]])
        np.testing.assert_array_equal(z_, [1.5, 0.5])
        assert (y_.dtype, index_.dtype, index_.shape) == (tf.float64, tf.int32, (2, 1))
    transposed, *_ = Sum().weighted(np.ascontiguousarray(x.T).T, index, "a constant", y, flag, z)
    np.testing.assert_array_equal(transposed, 2 * x)


def test_without_tensorflows_own_call_a_compiled_function_is_called_as_any():
    function = types.SimpleNamespace(captured_inputs=[])
    assert _unchecked(function) is function


def test_data_begin_where_tensorflow_wants_them_and_stay_there():
    packs = [_pack([np.arange(n, dtype=np.int64), np.float32(0.5)]) for n in range(1, 50)]
    gc.collect()
    for n, pack in enumerate(packs, 1):
        assert np.asarray(memoryview(pack)).ctypes.data % 64 == 0  # Eigen's vector instructions count on it
        words = pack.numpy()
        np.testing.assert_array_equal(words[:-1].view(np.int64), np.arange(n))
        assert words[-1:].view(np.float32) == 0.5
