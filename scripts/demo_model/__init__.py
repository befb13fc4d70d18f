"""How the demo's small model and its instruction sets are made from WordNet."""
