"""One trial on several GPUs: `crew` (starts the ranks), `ranks`, `shares` (whose rows), `sharding` (weights and
states), `together` (what all must say alike)."""
