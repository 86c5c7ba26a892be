//! One promise a file. Each can fail, which the mutants show.
pub(crate) mod converged;
pub(crate) mod kept;
pub(crate) mod present;
pub(crate) mod promises;
