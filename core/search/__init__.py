"""What to try, who goes on, and who is best.

- What to try: `space`, `constraints` (what follows from a point), `choice` (what `auto` becomes), `samplers`
  (plans), `spread`, `portfolio` (known to be good), `bayesian` (Optuna, only in the process `propose`;
  `proposals` are its messages)
- Who goes on: `halving`, `cost`, `guard` (divergence)
- Who is best: `metric`, `ranking`, `edges`, `importance`, `smoothing`
- A range test's reading: `lr_range`
"""
