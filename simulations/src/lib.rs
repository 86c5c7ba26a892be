//! The checkers of Orbweb's promises, and the three worlds that they look at.
//!
//! In reading order: [`simulate`] is the program that runs the first two: `world`, the cores under a
//! virtual clock, and `cluster`, whole nodes under one. [`chaos`] is the program of the third: real
//! processes of the shipped binary. `checkers` knows what was promised, one promise a file.
#![expect(clippy::print_stdout, reason = "the report of a run goes to the terminal")]

pub mod chaos;
mod checkers;
mod clients;
mod cluster;
mod entropy;
mod membership;
mod network;
mod options;
mod outcome;
mod parallel;
mod scenario;
mod shrink;
pub mod simulate;
mod whole;
mod world;
