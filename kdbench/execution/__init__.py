"""Where cohorts run: in this process, in processes of this machine, on a Ray cluster, or as Slurm jobs."""
