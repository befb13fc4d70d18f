"""Every parameter of tunedeck, described once: one pydantic model per table of a profile.

A field carries its type, its default and its bounds (pydantic), its explanation (`description`) and a `Doc`: the short
title, the range that works, when the parameter applies and its name in LLaMA-Factory. Validation, the editor's form,
its help, the TOML file, the JSON schema and the `params` command all read these models through `core.catalogue`.

Names are Hugging Face's and LLaMA-Factory's own. Ranges that work come from published runs and from the defaults
of the methods' authors; each explanation says what to expect outside of them.
"""

from core.params.alignment import AlignmentTable
from core.params.data import DataTable
from core.params.generation import GenerationTable
from core.params.method import MethodTable
from core.params.model import ModelTable
from core.params.profile import ProfileTable
from core.params.resources import MemoryTable, ResourcesTable
from core.params.search import Range, SearchTable
from core.params.table import CHECKPOINTED, FREEZE, LORA, QUANTIZED, SEVERAL_GPUS, Doc, Table, When
from core.params.train import TrainTable
from core.params.tuned import TunedTable

__all__ = [
    "CHECKPOINTED",
    "FREEZE",
    "LORA",
    "QUANTIZED",
    "SEARCHABLE_TABLES",
    "SEVERAL_GPUS",
    "TABLES",
    "AlignmentTable",
    "DataTable",
    "Doc",
    "GenerationTable",
    "MemoryTable",
    "MethodTable",
    "ModelTable",
    "ProfileTable",
    "Range",
    "ResourcesTable",
    "SearchTable",
    "Table",
    "TrainTable",
    "TunedTable",
    "When",
]

TABLES: dict[str, type[Table]] = {
    "profile": ProfileTable,
    "model": ModelTable,
    "method": MethodTable,
    "alignment": AlignmentTable,
    "data": DataTable,
    "train": TrainTable,
    "generation": GenerationTable,
    "memory": MemoryTable,
    "resources": ResourcesTable,
    "search": SearchTable,
    "tuned": TunedTable,
}
"""The tables of a profile in the order in which they are shown and saved."""

SEARCHABLE_TABLES = ("model", "method", "alignment", "data", "train", "generation")
"""Tables whose keys can be searched; a key's name is unique across them."""
