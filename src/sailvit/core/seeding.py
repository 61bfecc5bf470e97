"""Seeds derived from names, so that every random choice has its own stream and none depends on
call order.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, and on nothing else."""
    # Not Python's hash(), which is salted anew in every process.
    text = "/".join(str(name) for name in (seed, *names))
    # 63 bits: some generators take signed 64-bit seeds.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A counter-based NumPy generator for the named stream; cheap enough to make one per sample."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, *names)))
