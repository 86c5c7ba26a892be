//! What lets a node stand still as a process does that is stopped: none of its tasks is polled, nor any of
//! QUIC's, and when it goes on all of its timers are late.
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use orbweb::tasks::{Task, Tasks};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// One node's; all of its tasks share it.
#[derive(Clone, Default)]
pub(super) struct Brake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pulled: bool,
    /// Of tasks that something has woken meanwhile.
    waiting: Vec<Waker>,
}

impl Brake {
    pub(super) fn pull(&self) {
        self.lock().pulled = true;
    }

    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.pulled = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// What runs the node's tasks.
    pub(super) fn tasks(&self) -> Tasks {
        let brake = self.clone();
        Tasks::run_by(move |task| tokio::spawn(Braked { brake: brake.clone(), task }))
    }

    /// What runs QUIC's.
    pub(super) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(BrakedRuntime(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Brake({})", self.lock().pulled)
    }
}

struct Braked {
    brake: Brake,
    task: Task,
}

impl Future for Braked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.brake.lock();
        if state.pulled {
            state.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.task.as_mut().poll(context)
    }
}

#[derive(Debug)]
struct BrakedRuntime(Brake);

impl Runtime for BrakedRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Task) {
        self.0.tasks().spawn(task);
    }

    fn wrap_udp_socket(
        &self,
        socket: std::net::UdpSocket,
    ) -> std::io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_goes_on_when_its_node_does_and_not_before() {
        let (brake, began) = (Brake::default(), Instant::now());
        let (tell, told) = oneshot::channel();
        brake.tasks().spawn(async move {
            sleep(Duration::from_secs(1)).await;
            let _nobody = tell.send(began.elapsed());
        });
        sleep(Duration::from_millis(500)).await;
        brake.pull();
        sleep(Duration::from_secs(5)).await;
        brake.release();
        assert_eq!(told.await, Ok(Duration::from_millis(5_500)));
    }
}
