"""From files to batches: the same for every stage, as its own kind of example.

- From files to rows (`core.rows`) of a trial: `mixing`, `streaming`, `rows`, `reading`
- From rows to examples: `templates/`, `chat`, `spans` (where answers stand), `examples`, `packing`
- Shared by the trials of a study: `cache` and `stored`
- To the trainer: `batches`, `order`
"""
