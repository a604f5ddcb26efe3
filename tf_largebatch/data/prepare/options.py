"""What the user chooses about the output. Standard library only."""

from dataclasses import asdict, dataclass

from tf_largebatch.data.prepare.collection import SPLITS
from tf_largebatch.records.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    """What decides about the bytes written, beside the pictures, and how these are checked.

    Attributes:
        train_shards: files of the training split, > 0.
        validation_shards: files of the validation split, > 0.
        max_short_side: pictures whose shorter side has more pixels are reduced to it and encoded
            again as JPEG; None keeps all sizes.
        quality: of every picture encoded again, 1 to 100.
        reencode_odd: whether PNG and CMYK pictures become RGB JPEGs, which all readers take.
        check_decode: whether every picture is decoded once, which finds those cut short.
        skip_broken: whether a picture that cannot be read is left out and listed; else it is an
            error.

    Raises:
        InputError: a number outside its range.
    """

    train_shards: int = 1024
    validation_shards: int = 128
    max_short_side: int | None = None
    quality: int = 95
    reencode_odd: bool = False
    check_decode: bool = False
    skip_broken: bool = False

    def __post_init__(self):
        for split, shards in zip(SPLITS, self.shards, strict=True):
            # The names have five digits.
            if not 1 <= shards <= 99_999:
                raise InputError(
                    f"`{split}_shards` must be 1 to 99999. Received: {split}_shards={shards}"
                )
        if self.max_short_side is not None and self.max_short_side < 16:
            raise InputError(
                f"`max_short_side` must be at least 16 pixels. Received: "
                f"max_short_side={self.max_short_side}"
            )
        if not 1 <= self.quality <= 100:
            raise InputError(f"`quality` must be 1 to 100. Received: quality={self.quality}")

    def of_content(self) -> dict:
        """Returns what decides about the bytes of a shard without broken pictures."""
        checks = ("check_decode", "skip_broken")
        return {name: value for name, value in asdict(self).items() if name not in checks}

    @property
    def shards(self) -> tuple[int, int]:
        """Files of the training and of the validation split."""
        return self.train_shards, self.validation_shards
