"""Learners over rollouts and over replay."""
