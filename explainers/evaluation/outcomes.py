"""Outcomes of an evaluation on disk: one JSON line for each, so that a restart goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from explainers.errors import ExplainerError

FAILED = "failed"
LEFT_OUT = "left out"
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Outcome:
    """The result of one sample and one explainer.

    Attributes:
        image: name of the picture.
        label: class name.
        group: of the sample, for the bootstrap.
        explainer: its label in the table; "" where the sample as a whole has an outcome.
        settings: digest of all that decides the outcome.
        status: "ok", "partial: ...", "undefined: ..." of the explanation; "failed: ..." with the reason
            (tried again at a restart); "left out: ..." for a sample that is not evaluated.
        target: the explained output of the model; None where it did not come to that.
        score: the model's probability of it, in [0, 1].
        values: metric -> value, in the units of the table; None where it is not defined.
    """

    image: str
    label: str
    group: str
    explainer: str
    settings: str
    status: str
    target: int | None = None
    score: float | None = None
    values: dict[str, float | None] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What the outcome is of: picture, class, explainer and settings."""
        return self.image, self.label, self.explainer, self.settings


class Outcomes:
    """The file of outcomes. A later line of the same key replaces an earlier one.

    Args:
        path: the file; made when it is not there.

    Raises:
        ExplainerError: a line that is no outcome, naming file and line. A last line without its end, as a
            kill leaves it, is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[Key, Outcome] = {}
        if path.is_file():
            _cut_unfinished_line(path)
            for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    outcome = Outcome(**json.loads(text))
                except (ValueError, TypeError) as error:
                    raise ExplainerError(
                        f"{path}, line {number}: not an outcome of kensa evaluate ({error}); repair or "
                        "remove the line, or write into another folder"
                    ) from error
                self._found[outcome.key] = outcome

    def find(self, key: Key) -> Outcome | None:
        """Return the outcome of a key, or None."""
        return self._found.get(key)

    def add(self, outcome: Outcome) -> None:
        """Append an outcome; it is on disk when this returns."""
        text = json.dumps(asdict(outcome), ensure_ascii=False, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._found[outcome.key] = outcome

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._found.values())


def _cut_unfinished_line(path: Path) -> None:
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
