//! Passes: float graph to integer graph to kernel IR.
