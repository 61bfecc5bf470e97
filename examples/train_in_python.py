"""Train a recipe made in Python, with a callback of your own, and go on after an interrupt."""

import sys

import sailvit


class KeepLosses(sailvit.Callback):
    """Keeps the loss of every step."""

    def __init__(self):
        self.losses = []

    def step_ended(self, run, record):
        self.losses.append(record.loss["next_token"])


def main(tower, language, data, run="runs/in-python"):
    stage = {
        "name": "coarse",
        "train": {"connector": 1.0, "tower": 0.1},
        "data": ["captions"],
        "optim": {"lr": 1e-3},
        "length": {"epochs": 2},
        "global_batch": 2,
    }
    recipe = sailvit.Recipe(
        name="in-python",
        model={"tower": tower, "language": language},
        sequence=128,
        sources={"captions": {"format": "captions", "path": data}},
        stages=[stage],
    )
    kept = KeepLosses()
    try:
        done = sailvit.train(recipe, run=run, callbacks=[kept])
    except sailvit.InterruptedRunError:
        # Ctrl-C or the notebook's stop button: the state was saved before.
        done = sailvit.train(recipe, run=run, callbacks=[kept], resume=True)
    print(f"{len(done.metrics())} steps, loss {kept.losses[0]:.2f} to {kept.losses[-1]:.2f}")
    return done


if __name__ == "__main__":
    main(*sys.argv[1:])
