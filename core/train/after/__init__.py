"""The model at the end: merged and exported, talked to, and measured.

- Processes: `export`, `chat`, `evaluate` (`process` is what they share)
- A run's weights: `origin`, `trained`, `loading`, `merge`, `likeness` (whether what was written is what was
  trained)
- What is written: `folders`, `card` (the model card), `serving` (how to serve it)
- Answers: `speak`, `answering`, `references`, `rouge`; `examination` runs the stage's own evaluation
"""
