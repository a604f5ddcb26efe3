"""The sum of a tensor over all replicas, wherever in a training step a layer needs it.

`ReplicaContext.all_reduce` does for a whole step, but not within a loop over micro-batches: under
`MirroredStrategy` it raises there, since `merge_call` is not allowed in a control-flow graph. The
collective op underneath hangs there, because TensorFlow pairs the replicas' ops by key *and* by the
name of the loop around them, and the loops of two local replicas have two names. Here the op sits
in a function that is not inlined, outside any loop as far as TensorFlow can see.
"""

import functools
import zlib

import tensorflow as tf

# A collective's group key names its devices. The strategies count theirs from 1.
GROUP_KEYS_FROM = 1_000_000_000


@tf.custom_gradient
def sum_over_replicas(x: tf.Tensor) -> tf.Tensor:
    """Returns the sum of `x` over the replicas of the strategy, on each of them.

    Every replica must call it the same number of times in the same order, and with one shape, which
    must be known. The gradient is that of the sum of all replicas' losses: the sum of the upstream
    gradients.

    Call it in replica context. A process may hold several strategies, but not two of the same size
    over different devices. Runs on CPU and GPU in loops as outside; on a TPU, where it has not been
    run, it is the strategy's own all-reduce.
    """
    context = tf.distribute.get_replica_context()
    if tf.executing_eagerly() or isinstance(context.strategy, tf.distribute.TPUStrategy):
        return context.all_reduce(tf.distribute.ReduceOp.SUM, x), sum_over_replicas
    replica = int(tf.get_static_value(context.replica_id_in_sync_group))
    reduce = _make_reduce(context.num_replicas_in_sync, replica, tuple(x.shape), x.dtype)
    return reduce(x), sum_over_replicas


# One function per shape and replica, not one per call: tracing each of them takes milliseconds.
@functools.cache
def _make_reduce(replicas: int, replica: int, shape: tuple[int, ...], dtype: tf.DType):
    calls = _make_counter(replicas, replica)
    # All ops of one instance key must have one shape, and no two consecutive ops one key: a fast
    # replica may enter the next sum while a slow one still reads from the last, but never the one
    # after next. So the key is of the shape and of the parity of the call. (A key per call, as the
    # strategies have, costs a kilobyte that TensorFlow never frees.)
    shape_key = zlib.crc32(repr((shape, dtype.name)).encode()) >> 2

    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def reduce(x):
        with tf.device("CPU:0"):
            tf.raw_ops.AssignAddVariableOp(resource=calls, value=tf.constant(1, tf.int64))
            count = tf.raw_ops.ReadVariableOp(resource=calls, dtype=tf.int64)
            key = 2 * shape_key + tf.cast(count % 2, tf.int32)
        total = tf.raw_ops.CollectiveReduceV2(
            input=x,
            group_size=replicas,
            group_key=GROUP_KEYS_FROM + replicas,
            instance_key=key,
            ordering_token=[],  # `calls` orders them
            merge_op="Add",
            final_op="Id",
        )
        return tf.ensure_shape(total, shape)

    return reduce


@functools.cache
def _make_counter(replicas: int, replica: int) -> tf.Tensor:
    # The handle of a bare variable: the strategy would mirror a `tf.Variable`.
    with tf.init_scope(), tf.device("CPU:0"):
        handle = tf.raw_ops.VarHandleOp(
            dtype=tf.int64, shape=[], shared_name=f"sums_of_replica_{replica}_of_{replicas}"
        )
        tf.raw_ops.AssignVariableOp(resource=handle, value=tf.constant(0, tf.int64))
    return handle
