//! One promise a file. Each can fail, which the mutants show.
pub(crate) mod attendance;
pub(crate) mod bounds;
pub(crate) mod converged;
pub(crate) mod holders;
pub(crate) mod kept;
pub(crate) mod names;
pub(crate) mod present;
pub(crate) mod promises;
pub(crate) mod reads;
pub(crate) mod released;
pub(crate) mod users;
pub(crate) mod verdicts;
