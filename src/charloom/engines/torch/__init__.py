"""The networks in PyTorch: for GPUs and experiments, and the judge of every other engine."""
