"""The model of a trial: where it comes from, in which numbers, and what of it is trained.

`source`, `gguf` and `moved` (where it is), `build` (all in one), `adapter`, `pissa`, `trainable` (which weights),
`weights` (how they are saved), `isolation` (whether it keeps packed rows apart).
"""
