//! What runs the tasks in which a node thinks: its cores, and what it believes of the others. A simulation
//! brings its own, which can let all of a node stand still.
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinHandle;

/// A task that isn't running yet.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the module.
#[derive(Clone)]
pub struct Tasks(Arc<dyn Fn(Task) -> JoinHandle<()> + Send + Sync>);

impl Tasks {
    /// Runs each by this.
    pub fn run_by(run: impl Fn(Task) -> JoinHandle<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(run))
    }

    /// Starts a task; must be called on a runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        (self.0)(Box::pin(task))
    }
}

impl Default for Tasks {
    /// Those of the runtime that it is called on.
    fn default() -> Self {
        Self::run_by(tokio::spawn)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tasks")
    }
}
