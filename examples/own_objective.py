"""An objective of your own. A stage names it: `objectives: {next_token: 1.0, "own_objective:SmallTokens": 0.01}`."""

import sailvit


class SmallTokens(sailvit.Objective):
    """Keeps visual tokens small: the mean of their squares."""

    def units(self, batch):
        """How many terms the batch adds to the sum: its tiles."""
        return len(batch.tiles)

    def forward(self, model, activations, batch):
        """The sum over tiles, a scalar, from visual tokens float[I, V, D]."""
        return activations.visual.float().square().mean(dim=(1, 2)).sum()
