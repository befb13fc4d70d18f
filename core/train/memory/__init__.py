"""What a trial does so that its memory is enough.

- What saves it: `checkpointing`, `loss` (in chunks), `offload`, `paged`
- What shows early that there is not enough: `rehearsal` (the longest batch first)
"""
