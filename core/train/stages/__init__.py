"""What each stage does its own way; what all do alike is `base`.

- Which: `choice`, `stage` (the protocol)
- pt, sft: `sft`
- rm, dpo, kto: `by_row` (losses that are means over rows, with TRL's trainers), `collators`, `preference` and
  `reference` (what dpo and kto share; the latter with ppo), `pair_losses` (orpo, simpo, cDPO), `reward`, `dpo`, `kto`
- ppo: `ppo`, on `core.train.ppo`
- all but ppo with several GPUs: `ranked`, `ranked_by_row`
"""
