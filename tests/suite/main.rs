//! What a user meets: the command, the objects it writes, the examples, and what ONNX itself ships.

mod accuracy;
mod bad_input;
mod budgets;
mod check;
mod commands;
mod end_to_end;
mod examples;
mod models;
mod operators;
mod pareto;
mod sensitivity;
mod streams;
mod targets;
mod threads;
mod tool;
