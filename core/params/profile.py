"""The table [profile]: who a profile is."""

from typing import Annotated

from pydantic import Field

from core.params.table import Doc, Table


class ProfileTable(Table):
    """Who this profile is."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=80,
            pattern=r"^[^/\x00-\x1f]+$",
            description="The name that studies and saved files carry. A profile that says none has its file's.",
        ),
        Doc("Name"),
    ] = "untitled"
    notes: Annotated[
        str, Field(description="Anything worth remembering about this profile."), Doc("Notes")
    ] = ""
