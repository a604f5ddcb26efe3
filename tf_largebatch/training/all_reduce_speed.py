"""One worker of `speed.measure_all_reduces`: times all-reduces of the sizes that it is given.

tf-largebatch launch --workers 2 -- -m tf_largebatch.training.all_reduce_speed BYTES BYTES OUT
"""

import sys
from pathlib import Path

from tf_largebatch.records.files import write_json
from tf_largebatch.records.quiet import import_tensorflow
from tf_largebatch.records.settings import Settings


def main(sizes: list[int], out: Path) -> None:
    """Writes the seconds of each size, in order, from the chief."""
    tf = import_tensorflow()
    from tf_largebatch.training.speed import PARTS, enough, time_rounds
    from tf_largebatch.training.workers.team import Team

    team = Team()
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=Settings.pack_mb << 20)
    seconds = []
    for size in sizes:
        parts = [tf.ones([max(size // 4 // PARTS, 1)]) for _ in range(PARTS)]

        def reduce(parts=parts):
            context = tf.distribute.get_replica_context()
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, parts, options=options)
            return tf.add_n([part[0] for part in sums])

        @tf.function(autograph=False)
        def several(count, reduce=reduce):
            def body(i, _):
                row = team.strategy.experimental_local_results(team.strategy.run(reduce))[0]
                return i + 1, row

            return tf.while_loop(lambda i, _: i < count, body, (0, 0.0), parallel_iterations=1)[1]

        def run(count, several=several):
            several(tf.constant(count)).numpy()

        count = team.any(enough(run))  # as many on every worker
        seconds.append(time_rounds(run, count)[0])
    if team.chief:
        write_json(out, seconds)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:-1]], Path(sys.argv[-1]))
