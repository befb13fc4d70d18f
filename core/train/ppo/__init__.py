"""PPO: answers are drawn in rounds, scored, and gone over several times.

- A round: `rounds` (what it draws and when), `rollout` (answers), `scoring` (the reward model), `actors` and
  `reference` (who takes part, and what they share)
- An update: `policy` (probabilities), `values` (the value head), `advantages` (GAE), `losses`, `kl`
"""
