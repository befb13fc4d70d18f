"""What makes one study follow another: `plan` (what comes next), `handover` (who does it, and how clients make and
steer a recipe), `step` (what a step's daemon does), `exporting` (its result as a model), `wishes` (stop, pause …)."""
