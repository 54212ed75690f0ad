//! `spillq top`: what `status` and `doctor` say, live, with plots of the last minutes.
//!
//! A thread asks the service once a second and hands over what it heard; the screen never waits for it. The terminal is
//! given back as it was at every end: a key, a signal, an error or a panic.

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

/// How long a key is waited for before it is looked whether there is news.
const LOOK: Duration = Duration::from_millis(100);

/// Shows it until stopped.
///
/// # Errors
/// Without a terminal, or where no service answers at first.
pub fn run(args: &TopArgs) -> Result<Exit, Failure> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::could_not_run("top draws on a terminal, and here is none")
            .hint("`spillq status --watch` and `spillq doctor` print to anything"));
    }
    let place = Place::new(&args.store, args.url.as_deref())?;
    if place.service()?.is_none() {
        return Err(Failure::could_not_run(format!("{place}: no service runs on it"))
            .hint("`spillq status` reads what is on the disk of a stopped one"));
    }
    let failed = |error: io::Error| Failure::could_not_run("cannot draw on the terminal").because(error);
    let signals = Signals::listen().map_err(failed)?;
    let mut model = Model::new(place.to_string(), std::env::var_os("NO_COLOR").is_none());
    let asks = Asks::start(place).map_err(failed)?;
    // From here on a panic gives the terminal back, too.
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
        // Asked here first: with a terminal that hung up, reading keys would never come back.
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
                // Drawn anew at the new size, as with anything else.
                _ => {}
            }
        }
    }
    Ok(())
}

/// Waits for a key, for so long at most. True where none can come any more.
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
