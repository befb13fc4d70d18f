"""The daemon of a study, what it decides, and the clients of every process.

- The daemon: `daemon` carries out what pure functions decide (`scheduler`, `requests`, `endings`, `followup`) through
  `service`, `starts`, `live_trials`, `searching` (`rungs`, `proposing`, `confirming`); `recorder` writes the
  journal, also while the disk is full
- Parts of it: `memory/` (forecasts, looks into a trial's memory, what follows), `recipes/` (from step to step)
- What it watches: `watch` (metrics, guard), `silence`, `supply` (GPUs), `tidy` (checkpoints)
- How a trial starts: `prepare`, `launch`, `shim`, `detach`
- Talking to it: `server`, `client`, `messages`, `address`
- What came of it: `standing` (ranking), `judgement` (the doctor's facts), `outcome`, `costs` (what is yet to
  start), `results` (profiles made of trials)
- Clients of other processes: `asking` (how one is started, heard and ended), with it `preview` (data) and `after`
  (export, chat, eval; `runs` finds what is meant, `borrowing` a GPU for it)
"""
