//! `spillq top`: `status` and `doctor`, live, with plots of the last minutes.
//!
//! A thread asks the service once a second, and the screen never waits for it. The terminal is restored at every end: a
//! key, a signal, an error or a panic.

mod asks;
mod draw;
mod keys;
mod model;
mod plot;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::place::Place;
use super::{Exit, Failure};
use crate::cli::TopArgs;
use asks::{Asks, News, Signals};
use draw::draw;
use keys::{Pressed, pressed};
use model::Model;

/// Time to wait for a key before looking for an answer.
const LOOK: Duration = Duration::from_millis(100);

/// Shows it until stopped.
///
/// # Errors
/// Without a terminal, or if no service answers at the start.
pub fn run(args: &TopArgs) -> Result<Exit, Failure> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::could_not_run("top needs a terminal")
            .hint("`spillq status --watch` and `spillq doctor` need none"));
    }
    let place = Place::new(&args.store, args.url.as_deref())?;
    if place.service()?.is_none() {
        return Err(Failure::could_not_run(format!("{place}: no service runs on it"))
            .hint("`spillq status` reads the store of a stopped service"));
    }
    let failed = |error: io::Error| Failure::could_not_run("cannot draw on the terminal").because(error);
    let signals = Signals::listen().map_err(failed)?;
    let mut model = Model::new(place.to_string(), std::env::var_os("NO_COLOR").is_none());
    let asks = Asks::start(place).map_err(failed)?;
    // From here on a panic restores the terminal too.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let ended = show(&mut terminal, &mut model, &asks, &signals);
    let restored = ratatui::try_restore();
    ended.and(restored).map(|()| Exit::Fine).map_err(failed)
}

fn show(terminal: &mut DefaultTerminal, model: &mut Model, asks: &Asks, signals: &Signals) -> io::Result<()> {
    let began = Instant::now();
    let mut changed = true;
    while !signals.came() {
        while let Some(news) = asks.news() {
            match news {
                News::Heard(heard) => model.take(heard, began.elapsed()),
                News::Done(request, done) => model.done(&request, done),
            }
            changed = true;
        }
        changed |= model.tick(began.elapsed());
        if changed {
            terminal.draw(|frame| draw(frame, model))?;
        }
        // Checked first: reading keys of a terminal that hung up would never return.
        if has_hung_up(LOOK)? {
            return Ok(());
        }
        changed = false;
        while event::poll(Duration::ZERO)? {
            changed = true;
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match pressed(model, key) {
                    Pressed::End => return Ok(()),
                    Pressed::Order(request) => asks.order(request),
                    Pressed::Shown => {}
                },
                // A new size: the screen is drawn again.
                _ => {}
            }
        }
    }
    Ok(())
}

/// Waits for a key, at most for `wait`. True if no key can come any more.
fn has_hung_up(wait: Duration) -> io::Result<bool> {
    let input = io::stdin();
    let mut keys = [PollFd::new(&input, PollFlags::IN)];
    let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut keys, Some(&wait)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(keys[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}
