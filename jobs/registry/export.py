"""A bundle as a folder for a model hub: weights, card, example, requirements, and nothing of this machine."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from cluster import storage
from jobs.catalog import layout
from jobs.catalog.judged_files import KEY, check_weights, hash_of
from jobs.registry.model_card import card_of, yaml_head
from jobs.registry.registering import requirements, results_of

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
    card = "\n".join([yaml_head(facts, results), card_of(facts, results, dataset), USE])
    yield "README.md", card.encode()
    yield "example.py", EXAMPLE.encode()
    # A comment: the index of Python packages has none of that name, and whoever took it could run anything.
    needed = [f"# {_affuse()}, from its repository", *requirements()]
    yield "requirements.txt", "".join(f"{line}\n" for line in needed).encode()
    kept = {name: value for name, value in facts.items() if name not in KEPT_BACK}
    hashes = {name: hash_of(content) for name, content in judged.items()}
    yield layout.BUNDLE, storage.json_bytes({**kept, "imported": [], KEY: hashes})


def _affuse() -> str:
    try:
        return f"affuse {metadata.version('affuse')}"
    except metadata.PackageNotFoundError:  # run from its sources
        return "affuse"
