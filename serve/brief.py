"""A chat's session in its gateway: no store keeps it, so all that it was given lies here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from actors.statestore import Manifest
from serve.live.items import Input, SessionOptions

#: How often one chat begins in all. What ends a replica each time, or its engine, would end all.
MOST_BEGINNINGS = 8


@dataclass
class Brief:
    """Until it is closed.

    Attributes:
        manifest: of its present beginning, whose number is the epoch.
        inputs: all that a replica acknowledged.
        giving: held by who gives to it.
        beginning: held while it begins again.
    """

    manifest: Manifest
    options: SessionOptions
    inputs: list[Input] = field(default_factory=list)
    giving: asyncio.Lock = field(default_factory=asyncio.Lock)
    beginning: asyncio.Lock = field(default_factory=asyncio.Lock)

    def known(self) -> Manifest:
        """For calls: a replica that has it no more is not to begin it with nothing."""
        return replace(self.manifest, counts={"seq": len(self.inputs)})
