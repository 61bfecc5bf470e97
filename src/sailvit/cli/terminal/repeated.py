"""Help of commands with an argument that may be repeated."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand


class RepeatedArgument(TyperCommand):
    """A command whose help says that its argument may be repeated, and not that it becomes a
    `list[str]`, as typer's does.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for param in self.params:
            if isinstance(param, TyperArgument) and param.type_descriptor.is_list:
                # typer asks the parameter itself and takes no text for it.
                setattr(param, "display_type_rich", lambda ctx: "one or more")  # noqa: B010
