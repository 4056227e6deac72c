"""Any other text transformer of the model hub, or of a folder, by name.

`hub_text:weights=hf://owner/name@revision,dim=1024,depth=24`; the numbers stand in its config.json.
"""

from encoders.spec import HUB_OPTIONS, EncoderSpec
from encoders.text import INPUTS, OPTIONS, REVISION, SIDE

SPEC = EncoderSpec(
    name="hub_text",
    modality="text",
    summary="any text transformer, by weights=, dim= and depth=",
    implementation="encoders.text._transformer:TextTransformer",
    weights=(),
    own_weights=True,
    dim=0,
    licence="that of the weights",
    memory_gb=2.0,
    options={**OPTIONS, **HUB_OPTIONS},
    side=SIDE,
    inputs=INPUTS,
    revision=REVISION,
)
