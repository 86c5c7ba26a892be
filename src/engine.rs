//! The task that runs the cores.
