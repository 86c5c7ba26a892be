//! Single key presses: from a terminal at once, from anything else as bytes come.
use std::io::{self, IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Keys that may wait: more presses than anybody makes before the first is handled.
const KEYS_LEN: usize = 16;

/// Key presses on standard input, until it ends. The terminal is as before once this is dropped.
pub(super) struct Keys {
    presses: mpsc::Receiver<u8>,
    before: Option<Termios>,
}

impl Keys {
    /// Starts to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let before = if io::stdin().is_terminal() { Some(without_lines()?) } else { None };
        let (sender, presses) = mpsc::channel(KEYS_LEN);
        // Never joined: it hangs in a read until the process ends.
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            for key in io::stdin().lock().bytes() {
                let Ok(key) = key else { return };
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { presses, before })
    }

    /// The next key; never again once input has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> u8 {
        match self.presses.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing is left to do if the terminal is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Makes the terminal hand over each key at once and not print it. Ctrl-C stays a signal.
fn without_lines() -> io::Result<Termios> {
    let before = tcgetattr(io::stdin())?;
    let mut modes = before.clone();
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Now, &modes)?;
    Ok(before)
}
