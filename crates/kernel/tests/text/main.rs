//! Text form, verifier and interpreter.

mod interpret;
mod malformed;
mod random;
mod round_trip;
