//! Graph IR: straight-line SSA over tensors, in a float and an integer stage.
