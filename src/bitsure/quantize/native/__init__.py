"""Our own quantizers in plain torch, and the transforms and solvers that they are made of."""
