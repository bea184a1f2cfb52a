"""What a search draws its values from, in Hydra's words and in Optuna's."""

from collections.abc import Iterator
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from runlab.config.messages import user_errors

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def distribution(override: Override) -> "BaseDistribution":
    """What an override lets Optuna draw: an interval's numbers, a range's integers, or one of several words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    with user_errors(str(override.input_line)):
        if isinstance(value, IntervalSweep):
            kind = IntDistribution if isinstance(value.start, int) else FloatDistribution
            return kind(value.start, value.end, log="log" in value.tags)  # type: ignore[arg-type]
        if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range) and numbers:
            return IntDistribution(min(numbers), max(numbers), step=abs(numbers.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))


def each_choice(space: "dict[str, Any]") -> Iterator[list[str]]:
    """Overrides for each combination of choices, the first hundred: `optimizer=adamw`, and one value of all else."""
    values = {key: getattr(drawn_from, "choices", None) or [drawn_from.low] for key, drawn_from in space.items()}
    choices = ([f"{key}={value}" for value in (few[:1] if "." in key else few)] for key, few in values.items())
    yield from map(list, islice(product(*choices), 100))


def readable(value: Any, drawn_from: "BaseDistribution") -> Any:
    """A float rounded to four significant figures, still in its interval; anything else as it is."""
    if type(value) is not float:
        return value
    return min(max(float(f"{value:.4g}"), drawn_from.low), drawn_from.high)  # type: ignore[attr-defined]


def chosen(trial: "FrozenTrial") -> list[str]:
    """A trial's values as overrides."""
    return [f"{key}={value}" for key, value in trial.params.items()]
