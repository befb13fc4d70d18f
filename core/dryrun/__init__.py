"""The memory dry run: a trial's first updates on fake tensors. Entered only through `main`.

- The run: `load` (what the stage loads: `model`, built by `core.train`'s own functions, `quantized`), `steps` (what the
  Trainer does, in its order), `judged` (rm, dpo and kto: their own trainers' losses), `optimizers`, `offload`
- What it sees: `tracker` (every allocation and free), `memo`, `repeat`, `summary`
- What CUDA does otherwise: `cuda`, `attention`, `masks`, `fused_head` (TRL's); what data would say: `assumed`
- Around it: `lengths` (the longest rows), `prove`, `main`
"""
