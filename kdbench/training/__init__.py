"""One cohort in lockstep: batches, teachers, students, checkpoints."""
