"""Ray Tune without its own reporting and checkpoints: the jobs keep records of their trials themselves."""

import os

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def quiet_tune() -> None:
    """Set what Ray Tune reads from the environment, save what is set already."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
