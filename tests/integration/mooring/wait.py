# SPDX-License-Identifier: Apache-2.0
"""Bounded waiting. No test waits without a deadline."""
import time


def eventually(condition, timeout=10.0, what="", interval=0.01):
    """Calls condition() until it returns something true, and returns that.

    An AssertionError or OSError inside counts as "not yet"; the last one is shown when time is up.
    """
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except (AssertionError, OSError) as error:
            last = error
        if time.monotonic() >= deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"not within {timeout} s: {name}; last: {last!r}")
        time.sleep(interval)


def never(condition, seconds, what="", interval=0.02):
    """Fails as soon as condition() is true within the next seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        assert not value, f"{what or 'something that must not happen'}: {value!r}"
        time.sleep(interval)
