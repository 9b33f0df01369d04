"""Where a study lies: a journal file or a database that Optuna takes, so that it goes on later and others join it."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.reading import check_regular

Result = TypeVar("Result")
JOURNAL = "study.journal"
"""Name of the journal in the folder of a search, unless a user names another storage."""
_WAITS = (1.0, 5.0, 15.0)
"""Seconds before each of the further attempts to reach a database."""


class Storage:
    """A storage of studies.

    Args:
        where: A file for a journal, or the URL of a database; None for a journal in ``folder``.
        folder: The folder of the search.

    Raises:
        UsageError: If it cannot be opened.
        FormatError: If a journal is to be something else than a file.
        UnsupportedError: If Optuna is not installed.
    """

    def __init__(self, where: str | None, folder: Path) -> None:
        try:
            import optuna
            import sqlalchemy
        except ImportError as error:
            raise UnsupportedError(f"a search needs Optuna ({error}); run: pip install 'edgeq[search]'") from None
        optuna.logging.set_verbosity(logging.ERROR)
        self._failures: tuple[type[BaseException], ...] = (
            *(optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError),
        )
        self.shown = where or str(folder / JOURNAL)
        try:
            self._inner: Any = self._opened(optuna, where, folder)
        except (*self._failures, ImportError, ValueError) as error:
            raise UsageError(
                f"--storage {self.shown} cannot be opened ({_first_line(error)}); give a file for a journal, or the "
                "URL of a database that can be reached, such as sqlite:///study.db or postgresql://user@host/name"
            ) from None

    def _opened(self, optuna: Any, where: str | None, folder: Path) -> Any:
        if where is not None and "://" in where:
            self.shown = _without_password(where)
            return optuna.storages.RDBStorage(where)
        path = Path(where) if where is not None else folder / JOURNAL
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError("it should be a file in a folder that is there")
        check_regular([path])
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        return optuna.storages.JournalStorage(backend)

    def study(self, name: str, *, directions: list[str], seed: int) -> Any:
        """Returns a study, which is made if it is not there.

        Args:
            name: Its name.
            directions: ``minimize`` or ``maximize`` for each value.
            seed: Of the sampler; processes that join draw other candidates.
        """
        import optuna

        def create() -> Any:
            study = optuna.create_study(
                storage=self._inner, study_name=name, directions=directions, load_if_exists=True
            )
            study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
            return study

        return self.reached(create)

    def reached(self, call: Callable[[], Result]) -> Result:
        """Calls the storage, and again after a while if it is away.

        Raises:
            EdgeqError: If it stays away.
            FormatError: If it is a journal that cannot be read.
        """
        for wait in (*_WAITS, None):
            try:
                return call()
            except json.JSONDecodeError:
                raise FormatError(f"{self.shown} is no journal of a study, or damaged; give another file") from None
            except self._failures as error:
                if wait is None:
                    raise EdgeqError(
                        f"the storage {self.shown} went away ({_first_line(error)}); candidates that were measured "
                        "stay in the folder of the search: give the same command again once it is back"
                    ) from None
                time.sleep(wait)
        raise AssertionError("the last wait is None")


def is_alive(trial: Any) -> bool:
    """Whether somebody may still be working on a trial that has begun: on another machine, or in a living process."""
    host, process = trial.user_attrs.get("host"), trial.user_attrs.get("process")
    if host != os.uname().nodename or not isinstance(process, int):
        return host is not None
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return process != os.getpid()


def _without_password(url: str) -> str:
    import sqlalchemy

    return str(sqlalchemy.engine.make_url(url).render_as_string(hide_password=True))


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0].strip()[:200]
