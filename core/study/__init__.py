"""A study's folder: what is written there, by whom, and how it is read back.

- `journal`, `events`, `state`: self-checking records, their types, and the fold over them
- `metrics`: the points of a trial's curve, and following a file of them
- `files`, `preview`, `after`: what processes hand to each other: a trial's, the data view's, and those of export,
  chat and eval
- `store`, `recipes`: the folders of studies, and of recipes with their own journal
"""
