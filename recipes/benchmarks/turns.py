"""Clocks for things that are compared: they run in one process, a step at a time in turn.

Whatever else the machine does then hits all alike, and neighbouring steps can be divided by each other.
"""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

WARM_UP = 0.1  # share of the steps that is not counted
CLOCK = "from batch to batch"


class Turns:
    """Lets players run one at a time, each until it hands over, and clocks their turns.

    A turn is all that a player does: for a Trainer, loading of the batch, the step, and what follows it.

    Args:
        players: how many there are; number 0 begins.
        clock: seconds; `time.process_time` leaves out what other programs take of a machine that is shared.

    Example:
        >>> turns, played = Turns(2), []
        >>> def play(player):
        ...     for _ in range(3):
        ...         played.append(player)
        ...         turns.hand_over(player)
        >>> turns.run([partial(play, 0), partial(play, 1)])
        >>> played
        [0, 1, 0, 1, 0, 1]
    """

    def __init__(self, players: int, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self.seconds: list[list[float]] = [[] for _ in range(players)]
        self._errors: list[BaseException] = []
        self._playing = list(range(players))
        self._turn = 0
        self._begun = 0.0
        self._changed = threading.Condition()

    def run(self, plays: list[Callable[[], Any]]) -> None:
        """Run a function for each player, which calls `hand_over` at the end of each step.

        Raises:
            BaseException: the first that one of them raised, once the others are through.
        """
        threads = [threading.Thread(target=self._play, args=numbered) for numbered in enumerate(plays)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def hand_over(self, player: int) -> None:
        """End a player's turn, and wait for its next one."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[player].append(self._clock() - self._begun)
        self._pass_on(player)
        self._wait(player)

    def _play(self, player: int, play: Callable[[], Any]) -> None:
        self._wait(player)
        try:
            play()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._pass_on(player, leaves=True)

    def _wait(self, player: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == player)
        self._begun = self._clock()

    def _pass_on(self, player: int, leaves: bool = False) -> None:
        with self._changed:
            after = self._playing.index(player) + 1
            self._turn = self._playing[after % len(self._playing)]
            if leaves:
                self._playing.remove(player)
            self._changed.notify_all()


class TakeTurns(TrainerCallback):
    """Hands over to the next player after each step."""

    def __init__(self, turns: Turns, player: int):
        self.turns, self.player = turns, player

    def on_step_end(self, args, state, control, **kwargs):
        self.turns.hand_over(self.player)


class Clocked:
    """Adds up what a method takes, call by call."""

    def __init__(self, owner: type, name: str):
        self.owner, self.name, self.method = owner, name, getattr(owner, name)
        self.seconds: list[float] = []

    def __enter__(self) -> "Clocked":
        def clocked(*args):
            begun = time.perf_counter()
            result = self.method(*args)
            self.seconds.append(time.perf_counter() - begun)
            return result

        setattr(self.owner, self.name, clocked)
        return self

    def __exit__(self, *error) -> None:
        setattr(self.owner, self.name, self.method)

    def median_ms(self) -> float:
        return median_ms(self.seconds)


def in_turn(
    trainers: Sequence[Trainer],
    *others: Callable[[Turns, int], Any],
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Train all a step at a time; returns the seconds of the steps of each, warm-up left out.

    Args:
        trainers: each of as many steps.
        others: further players, called with the turns and their own number in them.
        clock: see [`Turns`].
    """
    turns = Turns(len(trainers) + len(others), clock)
    for player, trainer in enumerate(trainers):
        trainer.add_callback(TakeTurns(turns, player))
    plays: list[Callable[[], Any]] = [trainer.train for trainer in trainers]
    plays += [partial(other, turns, player) for player, other in enumerate(others, len(trainers))]
    turns.run(plays)
    return [seconds[warm_up(len(seconds)) :] for seconds in turns.seconds]


def warm_up(steps: int) -> int:
    """Steps that are not counted."""
    return int(WARM_UP * steps)


def ratio(seconds: Sequence[float], over: Sequence[float]) -> float:
    """Median of the ratios of neighbouring steps."""
    return statistics.median(mine / theirs for mine, theirs in zip(seconds, over, strict=True))


def median_ms(seconds: Sequence[float]) -> float:
    return 1e3 * statistics.median(seconds)
