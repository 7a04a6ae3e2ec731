"""How a command that takes long says what is going on."""

import time

from rich.status import Status

from serve.cli.output import err


class Progress:
    """What is going on: a spinner on a terminal, a line for each step otherwise."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._console = err()
        self._status: Status | None = None
        self._last = ""

    @property
    def elapsed_s(self) -> float:
        """Time since it was made, in seconds."""
        return time.monotonic() - self._began_s

    def tell(self, text: str) -> None:
        """Say what is being done now."""
        if text == self._last:
            return
        self._last = text
        if not self._console.is_terminal:
            self._console.print(f"{self.elapsed_s:6.1f} s  {text}", soft_wrap=True, markup=False)
            return
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def end(self, text: str) -> None:
        """Take the spinner away, and leave a line."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if text:
            self._console.print(text, soft_wrap=True, markup=False)
