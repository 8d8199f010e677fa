"""Less said by the libraries beneath, for a while; afterwards as much as before."""

import contextlib
from collections.abc import Iterator

import datasets
from transformers.utils import logging


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """transformers tells of errors alone."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def no_weight_bars() -> Iterator[None]:
    """The Trainer's own bars are enough: none for each file of weights read or written."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def no_data_bars() -> Iterator[None]:
    """None for each step over a data set."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
