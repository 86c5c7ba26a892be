//! What an operator can set, where each value came from, and how it is checked.
pub mod channels;
