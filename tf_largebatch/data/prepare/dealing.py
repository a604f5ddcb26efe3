"""Which picture goes to which shard, and in what order. Standard library only.

The order is that of a hash of split, class and file name: a fixed shuffle that mixes the classes in
every shard and depends on neither the layout, the machine, nor a generator's implementation.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

from tf_largebatch.data.prepare.collection import Picture
from tf_largebatch.records.errors import InputError


def deal(
    split: str, pictures: Sequence[Picture], classes: Sequence[str], shards: int
) -> list[tuple[Picture, ...]]:
    """Returns the pictures of each shard, in order; the shards' sizes differ by at most one.

    Args:
        split: "train" or "validation".
        pictures: in any order.
        classes: by label.
        shards: 1 to the number of pictures.

    Raises:
        InputError: more shards than pictures, or one picture twice.
    """
    count = len(pictures)
    if shards > count:
        raise InputError(
            f"`{split}_shards` must be at most the number of {split} pictures, {count:,}. "
            f"Received: {split}_shards={shards}"
        )

    def place(picture: Picture) -> tuple[bytes, str]:
        key = f"{split}/{classes[picture.label]}/{picture.name}"
        return blake2b(key.encode(), digest_size=8).digest(), key

    keyed = sorted((*place(picture), picture) for picture in pictures)
    for (_, key, one), (_, other, two) in pairwise(keyed):
        if key == other:
            raise InputError(
                f"a picture must be there once. Received: {key}, at byte {one.offset:,} of "
                f"{one.path} and at byte {two.offset:,} of {two.path}"
            )
    bounds = [number * count // shards for number in range(shards + 1)]
    return [tuple(row[2] for row in keyed[low:high]) for low, high in pairwise(bounds)]
