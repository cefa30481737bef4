//! Statistics over records, against reference computations.

mod against;
mod common;
mod figures;
mod fits;
mod frontier;
mod passes;
mod piecewise;
mod stream;
mod summary;
