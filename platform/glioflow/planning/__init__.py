"""From a cohort and a machine to an experiment file in which every choice has its reason."""
