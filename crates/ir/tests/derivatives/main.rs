//! Rules of reverse mode against finite differences in double precision.

mod cases;
mod check;
mod networks;
