"""Exit codes and positional arguments that commands share."""

from typing import Annotated

import tyro

DONE, REFUSED, USAGE, FAILED = 0, 1, 2, 3

Url = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
Id = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SESSION")]
Where = Annotated[str | None, tyro.conf.arg(metavar="SQL")]
At = Annotated[str | None, tyro.conf.arg(metavar="TAG|SNAPSHOT|DATE")]
