"""What if: scenarios laid over a base question, their answers, what moved and why."""
