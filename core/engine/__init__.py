"""The daemon of a study, what it decides, and the clients of every process.

- The daemon: `daemon` carries out what pure functions decide (`scheduler`, `requests`, `endings`, `followup`,
  `advice`, `clearance`) through `service`, `starts`, `live_trials`, `searching` (`rungs`, `proposing`,
  `confirming`) and `advising`; `recorder` writes the journal, also while the disk is full
- What it watches: `watch` (metrics, guard), `silence`, `supply` (GPUs), `tidy` (checkpoints)
- How a trial starts: `prepare`, `launch`, `shim`, `detach`
- Talking to it: `server`, `client`, `messages`, `address`
- What came of it: `standing` (ranking), `judgement` (the doctor's facts), `outcome`, `costs` (what is yet to
  start), `results` (profiles made of trials)
- Memory: `target` (a GPU as a forecast's target), `row_bounds`, `foresight` (what is known), `advisers` and
  `advise` (the process), `jobs` (its messages), `calibrate`
- Recipes: `recipe_plan` (what comes next), `recipes` (who hands over), `recipe_step` (what a step's daemon does),
  `exporting_step`, `recipe_wishes`
- Clients of other processes: `preview` (data), `after` (export, chat, eval; `runs` finds what is meant, `borrowing`
  a GPU for it)
"""
