"""Networks, losses and optimizer steps of Learners as compiled kernels, with backward passes of their own."""
