//! Kernel IR: loops, tiles and semantic vector operations.
