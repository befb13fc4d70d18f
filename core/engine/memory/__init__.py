"""What a study's daemon knows and does about the memory of its trials.

- What is known: `foresight`, of `target` (a GPU as a forecast's target) and `row_bounds`; `calibrate` (what was
  measured)
- What is looked into: `advisers` and `advise` (a process), `jobs` (its messages), `advising`
- What follows: `advice`, `clearance`
"""
