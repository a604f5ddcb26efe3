"""What an instrument will take of memory, told before it starts."""

from tf_largebatch.records.errors import InputError
from tf_largebatch.records.memory import available_bytes, gigabytes

FLOAT64 = 8
WORKING_VECTORS = 30  # as long as the weights: scipy's L-BFGS-B keeps 25, and a gradient or two
MOST_TAKEN = 0.9  # of what is there may be taken


def check_memory(
    wanted: list[str], *, weights: int, products: int, directions: int, image_bytes: int
) -> None:
    """Refuses instruments whose vectors do not fit the memory that is there.

    The images count too. What a forward and backward pass takes besides is not known here, and
    depends on `--micro-batch`.
    """
    there = available_bytes()
    if there is None:
        return
    vector = FLOAT64 * weights
    # Vectors of the weights' length that an instrument keeps, in words, and how to keep fewer.
    vectors = {
        "hessian": (products, f"{products} products of ", "fewer --products"),
        "sharpness": (directions, f"{directions} random directions of ", "fewer --directions"),
    }
    for name in wanted:
        kept, what, remedy = vectors.get(name, (0, "", ""))
        needed = (kept + WORKING_VECTORS) * vector + image_bytes
        if needed <= MOST_TAKEN * there:
            continue
        most = int((MOST_TAKEN * there - image_bytes) // vector) - WORKING_VECTORS
        fits = f"{remedy} (at most {most} here)" if remedy and most > 0 else "a larger machine"
        raise InputError(
            f"--{name.replace('_', '-')} needs about {gigabytes(needed)} of memory ({what}"
            f"{weights:,} weights, 8 bytes each, and the images). Available: {gigabytes(there)}. "
            f"Use {fits} or fewer --images"
        )
