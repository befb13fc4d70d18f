"""What a run needs of a device's memory, and what makes it fit.

- The words: `forecast`
- At once: `architecture` (a config.json's shape; `models/`), `closed_form` (`estimate/`: what one layer allocates,
  states, context, stages)
- Proof: `prover`, `proof` (the dry run's client and messages), `allocator` (PyTorch's, modelled)
- Measured: `calibration` (forecast against measurement, per GPU and version)
- What to do: `fixes` (`remedies/`: the moves, their costs, the ladder where nothing can be proven), `limits`
  (largest batch, longest rows)
- What happened: `oom` (`endings/`), `creep`
"""
