"""Planning an experiment file for a cohort and a machine, with a reason for every choice."""
