"""The data view: what three rows look like as tokens, and the usual mistakes in all of them. Entered through `main`.

`shown` (an example as it is shown), `pieces` (its tokens as text), `examine` (what all rows are), `suspicion` (what
that may mean).
"""
