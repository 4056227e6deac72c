"""A bundle as a folder for a model hub: weights, card, example, requirements, and nothing of this machine."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from cluster import storage
from jobs.catalog import layout
from jobs.catalog.judged_files import KEY, check_weights, hash_of
from jobs.registry.model_card import card_of, plain, yaml_head
from jobs.registry.registering import requirements, results_of
from jobs.scoring.bundle import imported_widths

KEPT_BACK = ("config", "imported")
"""Facts that name places of the machine where the bundle was made."""

EXAMPLE = '''\
"""Score clips with this bundle: python example.py CLIP [CLIP ...]"""

import sys
from pathlib import Path

import affuse

bundle = affuse.load_bundle(str(Path(__file__).resolve().parent))
print(bundle.predict(sys.argv[1:]).to_string())
'''

EXAMPLE_OF_FEATURES = '''\
"""Score features with this bundle: python example.py FEATURES.npz

One array an input, [clip feature] or [clip step feature]: {inputs}.
"""

import sys
from pathlib import Path

import affuse
import numpy as np

bundle = affuse.load_bundle(str(Path(__file__).resolve().parent))
with np.load(sys.argv[1]) as arrays:
    print(bundle.predict({{name: list(arrays[name]) for name in arrays.files}}).to_string())
'''

USE_OF_FEATURES = """\
## Use

With affuse installed from its repository, as its README says (`requirements.txt` has the versions that were
here):

```console
$ python FOLDER/example.py features.npz
```

FOLDER is where these files lie. The bundle reads features that were imported and that no encoder of affuse
makes, so it cannot score raw clips: features.npz holds one array an input, made as those of the data were
({inputs}). A dataset into which they were imported under these names is scored by
`affuse score --root ROOT --bundle FOLDER --source features`.
"""

USE = """\
## Use

With affuse installed from its repository, as its README says (`requirements.txt` has the versions that were
here):

```console
$ affuse score clip.mp4 --bundle FOLDER
$ python FOLDER/example.py clip.mp4
```

FOLDER is where these files lie. The weights of encoders come from their own places, by their own licences.
"""


def exported(
    uri: str, facts: Mapping[str, Any], dataset: Mapping[str, Any] | None
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files, the bundle's own commit last.

    Args:
        uri: folder of the bundle.
        facts: its `bundle.json`.
        dataset: facts of the data, for the card.
    """
    results = results_of(uri)
    for member in facts["members"]:
        for seed in member["seeds"]:
            for file in (layout.WEIGHTS, layout.CARD):
                inside = layout.nets_uri("", member["run"], seed, file).lstrip("/")
                content = storage.read_bytes(storage.join(uri, inside))
                if file == layout.WEIGHTS:
                    folder = layout.nets_uri(uri, member["run"], seed)
                    check_weights(folder, content, member.get("sha256", {}).get(seed))
                yield inside, content
    judged = {}
    if results is not None:
        judged[layout.RESULTS] = storage.json_bytes(results)
    yield from judged.items()
    use, example = _use_and_example(facts)
    card = "\n".join([yaml_head(facts, results), card_of(facts, results, dataset), use])
    yield "README.md", card.encode()
    yield "example.py", example.encode()
    # A comment: the index of Python packages has none of that name, and whoever took it could run anything.
    needed = [f"# {_affuse()}, from its repository", *requirements()]
    yield "requirements.txt", "".join(f"{line}\n" for line in needed).encode()
    kept = {name: value for name, value in facts.items() if name not in KEPT_BACK}
    hashes = {name: hash_of(content) for name, content in judged.items()}
    yield layout.BUNDLE, storage.json_bytes({**kept, "imported": [], KEY: hashes})


def _use_and_example(facts: Mapping[str, Any]) -> tuple[str, str]:
    """How the bundle is used: a section of the card, and a script."""
    if not (inputs := imported_widths(facts)):
        return USE, EXAMPLE
    listed = ", ".join(f"{plain(name)} {width} wide" for name, width in sorted(inputs.items()))
    # The names are others' and stand in the comment of a script.
    in_script = listed.replace("\\", "").replace('"', "'")
    return USE_OF_FEATURES.format(inputs=listed), EXAMPLE_OF_FEATURES.format(inputs=in_script)


def _affuse() -> str:
    try:
        return f"affuse {metadata.version('affuse')}"
    except metadata.PackageNotFoundError:  # run from its sources
        return "affuse"
