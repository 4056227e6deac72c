"""What an adapter knows of its dataset: licence, papers, where it is had, how it is laid out and split."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import NotPreparedError


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts of a dataset that `affuse prepare NAME --how` and `--cite` print."""

    name: str
    """Name of the adapter."""

    licence: str
    """Licence of the data, recorded beside everything made from it; empty where only its owner knows it."""

    citation: str
    """Papers to cite, one a line."""

    download: str
    """Where the files are had, and under which conditions."""

    layout: Sequence[str]
    """Files below the source, one a line, indented as folders are."""

    looked_for: str
    """The file that tells the dataset from any other folder; a wrong folder is refused by this name."""

    groups: str
    """What a group is: clips of one group never straddle splits."""

    splits: str
    """Splits and folds that the dataset brings."""

    command: str
    """A command that prepares it."""

    def absent(self, source: str, *, why: str = "") -> NotPreparedError:
        """The refusal of a source that is not this dataset."""
        return NotPreparedError(
            f"--source {source}: expected {self.looked_for}, {why or 'found none'}; what to download "
            f"and where to put it: affuse prepare {self.name} --how"
        )

    def how(self) -> str:
        """What to download, where to put it, what to type."""
        lines = [
            f"licence:  {self.licence or 'yours to say, by --licence'}",
            f"get it:   {self.download}",
            f"groups:   {self.groups}",
            f"splits:   {self.splits}",
            "",
            "put it so:",
            *(f"  {line}" for line in self.layout),
            "",
            "then type:",
            f"  {self.command}",
        ]
        return "\n".join(lines)

    def cite(self) -> str:
        """The papers to cite, and the licence."""
        return f"{self.citation}\nLicence: {self.licence or 'that of the data you bring'}"
