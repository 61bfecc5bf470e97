"""Patch features of images, from the tower of a run or any tower of the hub."""

import sys

import sailvit


def main(tower, *images):
    loaded = sailvit.load_tower(tower)  # a run folder, a stage's folder, a tower's folder, a hub id
    features = loaded(list(images))  # float[I, P, D]
    rows, columns = loaded.grid
    print(f"{len(images)} images, {rows} x {columns} patches of {loaded.width} numbers")
    return features.unflatten(1, (rows, columns))


if __name__ == "__main__":
    main(*sys.argv[1:])
