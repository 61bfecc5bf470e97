"""Seeds derived from names, so that every random choice has its own stream and none depends on
call order.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, and on nothing else."""
    # Not Python's hash(), which is salted anew in every process.
    text = "/".join(str(name) for name in (seed, *names))
    # 63 bits: some generators take signed 64-bit seeds.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A counter-based NumPy generator for the named stream; cheap enough to make one per sample."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, *names)))


def mix_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """uint64[n]: 64 well-mixed bits of each value (the finalizer of SplitMix64); 0 stays 0."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
