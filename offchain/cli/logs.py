# SPDX-License-Identifier: BSD-3-Clause
"""Where the agents' log goes: standard error, so that standard output stays a report."""

from __future__ import annotations

import logging
import sys

import structlog


def to_standard_error(*, verbose: bool) -> None:
    """Log warnings, or with `verbose` also what happens; colours only for a person's eyes."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            # Plain tracebacks: others show local variables, and keys are among them.
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(),
                                          exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if verbose else logging.WARNING
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
