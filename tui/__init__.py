"""The command line and the dashboard.

- Command line: `cli`, `parsing`, `commands/`, `follow` and `follow_recipe` (headless progress), `leaving` (Ctrl-C),
  `columns`, `text_table`
- The dashboard: `dashboard` starts `app`; `actions` (one table of keys), `keymap`, `modes`, `screens/`, `widgets/`,
  `styles/`, `theme`, `repaint` (sends only cells that changed), `hangup` (a dropped terminal), `clipboard`
- What it reads: `source`, `reading`, `feed`, `curve`, `snapshot` (frozen views)
- A profile being edited: `draft`, `form`, `plan`, `row_count`, `space_text`, `rates` (that usually work), `data_view`,
  `data_look`; memory while one types: `memory_desk`, `forecasting`, `memory_view`
- In words: `words`, `detail`, `explain`, `rung_text`, `news`, `outcome`, `findings`, `fix_view`, `recipe_view`,
  `model_use`, `harmless` (what a terminal must not get)
"""
