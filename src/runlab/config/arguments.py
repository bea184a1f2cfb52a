"""The arguments of `python -m runlab.export` and `python -m runlab.results`."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from runlab.config.messages import UserError, suggest


class Arguments(argparse.ArgumentParser):
    """argparse, with a `UserError` for what it cannot read."""

    def parse_args(self, args: Sequence[str]) -> Any:  # type: ignore[override]
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for word in (word.partition("=")[0] for word in args if word.startswith("--")):
            if word not in known:
                raise UserError(f"{word}: no such option." + suggest(word, known))
        return super().parse_args(args)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows how")
