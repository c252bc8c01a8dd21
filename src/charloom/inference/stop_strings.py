"""Stop strings: an automaton that finds the first of them, and what may be given out before it is known to be none."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopStrings:
    """The automaton of some stop strings (Aho and Corasick 1975); memory and time are linear in their characters.

    A state is the longest end of a text that is the beginning of a stop string; 0 is the empty one. Nothing changes
    once it is made, so sequences share it.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.depth = [0]
        """How many characters each state is."""
        self.whole = [0]
        """How many characters the longest stop string has that a text in this state ends with; 0 for none."""
        self._shorter = [0]  # the longest end of a state, other than itself, that is a state too
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
        """The state of a text in this state once a character has come."""
        while state and (state, character) not in self._following:
            state = self._shorter[state]
        return self._following.get((state, character), 0)


class StopGate:
    """Lets characters through until a stop string is whole, and never any part of that string.

    What could still become a stop string waits: always the longest such suffix, so that a match can begin nowhere
    before it. The stop string that is whole first counts; of several, the longest.
    """

    def __init__(self, stop: StopStrings) -> None:
        self.stopped = False
        self._stop, self._state = stop, 0
        self._held: deque[str] = deque()

    def push(self, character: str) -> str:
        """What may be given out after this character; nothing once stopped."""
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
        """What waited, now that nothing follows."""
        return self._let_through(0)

    def _let_through(self, held: int) -> str:
        """All that waits but for the last so many characters."""
        return "".join(self._held.popleft() for _ in range(len(self._held) - held))
