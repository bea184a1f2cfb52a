"""The sweepers, in the one package where Hydra 1.3 looks for them. It imports this file at each start."""

from runlab.sweeps import grid, search


class Grid(grid.Grid):
    """`hydra/sweeper=grid`."""


class Search(search.Search):
    """`hydra/sweeper=optuna`."""
