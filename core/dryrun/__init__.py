"""The memory dry run: a trial's first updates on fake tensors. Entered only through `main`.

- The run: `model` (built by `core.train`'s own functions, `quantized`), `steps` (what the Trainer does, in its
  order), `optimizers`, `offload`
- What it sees: `tracker` (every allocation and free), `memo`, `repeat`, `summary`
- What CUDA does otherwise: `cuda`, `attention`, `masks`
- Around it: `lengths` (the longest rows), `prove`, `main`
"""
