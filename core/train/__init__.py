"""Training: data to tokens, model, stages, checkpoints, and the model at the end. Only its processes enter here.

- Processes: `worker` (a trial), `preview` (the data view), `after/` (export, chat, evaluate)
- A trial: `trial`, `opening` (what it says first), `startup`, `plan` (updates, rungs), `schedule`, `settings`,
  `signals`, `conductor` (rungs, pause, stop, early stopping), `checkpoints`, `resumption` (what made a
  checkpoint), `judging` (its metric)
- From files to rows: `files`, `formats/`, `mixing`, `streaming`, `rows`, `reading`
- From rows to batches: `templates/`, `chat`, `spans` (where answers stand), `examples`, `data`, `packing`,
  `isolation` (packed rows apart), `order`, `cache` and `stored` (tokens that trials share)
- The data view's findings: `shown`, `pieces`, `examine`, `suspicion`
- Model: `source`, `gguf`, `build`, `adapter`, `pissa`, `trainable`, `precision`, `optimizers`, `weights`
- What saves memory: `checkpointing`, `loss` (in chunks), `offload`, `paged`; `rehearsal` (the longest batch first),
  `limits`, `moments` (peaks)
- Stages: `stages/` (what each does its own way, `ppo/`), `scores`
- What is reported: `report`, `measures`, `utilisation`, `tensorboard`
- Several GPUs: `crew` (starts the ranks), `ranks`, `shares` (rows), `sharding` (weights, states), `together`
"""
