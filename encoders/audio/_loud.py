"""Which steps of a recording are loud: the option ``loud=N`` of encoders of 20 ms steps.

Steps more than N dB below the loudest of their clip are not valid: neither pooling nor a net reads them,
though the model was given them. Acted and studio recordings begin and end with silence, whose states dilute
a mean over time; where there is noise of that level, all steps stay.

Shapes: batch, time, feature.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MELS_A_STEP = 2


def energy_of_samples(
    values: Float[Tensor, "batch time samples"],
) -> Float[Tensor, "batch time"]:
    """Mean square of the samples of each step."""
    return values.float().square().mean(2)


def energy_of_mels(mel: Float[Tensor, "batch mels frames"]) -> Float[Tensor, "batch time"]:
    """Power of Whisper's log-mel frames, (log10 + 4) / 4, summed over the bands of a step's frames."""
    power = (10 ** (4 * mel.float() - 4)).sum(1)
    return power.reshape(len(mel), -1, MELS_A_STEP).sum(2)


def loud_steps(
    energy: Float[Tensor, "batch time"], inside: Bool[Tensor, "batch time"], loud_db: int
) -> Bool[Tensor, "batch time"]:
    """The real steps that are at most `loud_db` below the loudest of their row; 0: all real ones."""
    if not loud_db:
        return inside
    loudest = energy.masked_fill(~inside, 0.0).amax(1, keepdim=True)
    return inside & (energy >= loudest * 10 ** (-loud_db / 10))


def loud_of(energy: Float[Tensor, " time"], loud_db: int) -> Bool[Tensor, " time"]:
    """The loud steps of one clip, all of whose steps are real."""
    return loud_steps(energy[None], torch.ones(1, len(energy), dtype=torch.bool), loud_db)[0]
