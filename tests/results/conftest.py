"""Runs to make tables of."""

from tests.pages.run_directories import make_run as make_run
from tests.pages.run_directories import put_run as put_run
