"""Stop strings: an automaton that finds the first one, and a gate that returns only the text before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopStrings:
    """The automaton of some stop strings (Aho and Corasick 1975). Memory and time are linear in their characters.

    A state is the longest suffix of a text that is a prefix of a stop string. State 0 is the empty suffix. The
    automaton never changes, so sequences share it.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.depth = [0]
        """The length of each state in characters."""
        self.whole = [0]
        """The length of the longest stop string that ends in each state; 0 for none."""
        self._shorter = [0]  # the longest proper suffix of each state that is a state
        self._following: dict[tuple[int, str], int] = {}
        for text in stop:
            self._add(text)
        for (state, character), longer in sorted(self._following.items(), key=lambda edge: self.depth[edge[1]]):
            self._shorter[longer] = self.after(self._shorter[state], character) if state else 0
            self.whole[longer] = self.whole[longer] or self.whole[self._shorter[longer]]

    def __bool__(self) -> bool:
        return bool(self._following)

    def _add(self, text: str) -> None:
        state = 0
        for character in text:
            longer = self._following.setdefault((state, character), len(self.depth))
            if longer == len(self.depth):
                self.depth.append(self.depth[state] + 1)
                self.whole.append(0)
                self._shorter.append(0)
            state = longer
        self.whole[state] = len(text)

    def after(self, state: int, character: str) -> int:
        """The state after this state and one more character."""
        while state and (state, character) not in self._following:
            state = self._shorter[state]
        return self._following.get((state, character), 0)


class StopGate:
    """Passes characters on until a stop string is complete, and never any part of that string.

    The gate delays the longest suffix that can still become a stop string. So no match can begin before that suffix.
    The stop string that is complete first ends the text; of several, the longest.
    """

    def __init__(self, stop: StopStrings) -> None:
        self.stopped = False
        self._stop, self._state = stop, 0
        self._held: deque[str] = deque()

    def push(self, character: str) -> str:
        """The text that can be passed on after this character; empty after a stop string."""
        if not self._stop:
            return character
        if self.stopped:
            return ""
        self._held.append(character)
        self._state = self._stop.after(self._state, character)
        if whole := self._stop.whole[self._state]:
            self.stopped = True
            text = self._let_through(whole)
            self._held.clear()
            return text
        return self._let_through(self._stop.depth[self._state])

    def release(self) -> str:
        """The delayed text, when no character follows."""
        return self._let_through(0)

    def _let_through(self, held: int) -> str:
        """Passes on all delayed characters except the last `held`."""
        return "".join(self._held.popleft() for _ in range(len(self._held) - held))
