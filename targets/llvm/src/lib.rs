//! Lowers kernel IR to object files through LLVM.
