"""Sweeps: Optuna proposes settings, whole federations on Ray try them, the best is tested once."""

import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)  # each trial is announced by this package
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
