"""Training: data to tokens, model, stages, checkpoints, and the model at the end. Only its processes enter here.

- Processes: `worker` (a trial), `preview/` (the data view), `after/` (export, chat, evaluate)
- A trial: `trial`, `opening` (what it says first), `startup`, `plan` (updates, rungs), `schedule`, `settings`,
  `schedule_settings`, `precision`, `optimizers`, `signals`, `conductor` (rungs, pause, stop, early stopping),
  `judging` (its metric)
- Checkpoints: `checkpoints`, `resumption` (what made one), `meaning` (what a setting comes to)
- What it is made of: `data/`, `model/`, `memory/` (what saves it), `distributed/` (several GPUs)
- What each stage does its own way: `stages/`, `ppo/`; `scores` (an evaluation)
- What is reported: `report`, `measures`, `moments` (peaks of memory), `limits` (its cap), `utilisation`,
  `tensorboard`, `log`
"""
