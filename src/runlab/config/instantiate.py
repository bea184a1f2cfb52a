"""What a config describes by `_target_`, made."""

from functools import partial

from hydra.utils import instantiate

# Plain lists and dicts, no Hydra containers: what a checkpoint may hold.
build = partial(instantiate, _convert_="all")
