//! Keys. Pausing asks first: the key is easily pressed by accident, and a pause stays in force over restarts.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::Model;
use crate::http::AdminJson;

/// What a key does.
#[derive(Debug)]
pub(super) enum Pressed {
    /// The screen ends.
    End,
    /// The service is asked for something.
    Order(AdminJson),
    /// Only the screen changes, if anything.
    Shown,
}

/// Handles a key.
pub(super) fn pressed(model: &mut Model, key: KeyEvent) -> Pressed {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Pressed::End } else { Pressed::Shown };
    }
    model.notice.clear();
    if let Some(name) = model.to_pause.take() {
        if key.code == KeyCode::Char('y') {
            return Pressed::Order(AdminJson::Pause { name, paused: true });
        }
        // Every other key means no, and nothing else.
        model.notice = vec![format!("group {name} was not paused")];
        return Pressed::Shown;
    }
    match (key.code, model.chosen_group().map(|group| group.group.clone())) {
        (KeyCode::Char('q') | KeyCode::Esc, _) => return Pressed::End,
        (KeyCode::Down | KeyCode::Right | KeyCode::Tab | KeyCode::Char('j'), _) => model.choose(1),
        (KeyCode::Up | KeyCode::Left | KeyCode::BackTab | KeyCode::Char('k'), _) => model.choose(-1),
        (KeyCode::Char('p'), Some(name)) if model.paused().contains(&name.as_str()) => {
            model.notice = vec![format!("group {name} is paused already; r resumes it")];
        }
        (KeyCode::Char('p'), Some(name)) => model.ask_to_pause(name),
        (KeyCode::Char('r'), Some(name)) => {
            return Pressed::Order(AdminJson::Pause { name, paused: false });
        }
        (KeyCode::Char('d'), Some(group)) => {
            return Pressed::Order(AdminJson::DeadLetters { group, from: 0 });
        }
        _ => {}
    }
    Pressed::Shown
}
