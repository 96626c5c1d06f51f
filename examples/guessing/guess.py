"""A guessing game: the model guesses a number, and is told whether it is higher or lower."""

from __future__ import annotations

import re

from ebbtide import Environment, Task


class Guess(Environment):
    """Gives `right` for the number, and takes `wrong` for each guess that is not it."""

    def __init__(self, highest: int = 10, right: float = 1.0, wrong: float = 0.1):
        self.highest = highest
        self.right = right
        self.wrong = wrong

    def reset(self, task: Task) -> str:
        self.number = int(task.label)
        return f"I think of a number from 1 to {self.highest}. What is it? Say one number."

    def step(self, action: str) -> tuple[str | None, float, bool]:
        found = re.search(r"\d+", action)
        if found is None:
            return "Say a number.", -self.wrong, False
        guess = int(found[0])
        if guess == self.number:
            return None, self.right, True
        return "Higher." if guess < self.number else "Lower.", -self.wrong, False
