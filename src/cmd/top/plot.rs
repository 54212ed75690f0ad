//! A plot of the last minutes: bars, the newest at the right, the limit if there is one, and a time axis.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::Line;
use ratatui::widgets::Sparkline;

use super::model::{HISTORY_MAX, Model};
use crate::plain::axis_duration;

/// Formats a value.
pub(super) type Unit<'u> = &'u dyn Fn(u64) -> String;

/// Heights of a bar within one row.
const STEPS: u64 = 8;
/// A newer answer counts as now.
const NOW: Duration = Duration::from_secs(2);
/// Columns between two times on the axis.
const TIMES_APART: usize = 16;

/// The values of a plot.
pub(super) struct Plot<'p> {
    pub(super) title: String,
    pub(super) values: Vec<u64>,
    pub(super) unit: Unit<'p>,
    /// A value that is drawn as a line; the plot always includes it.
    pub(super) limit: Option<u64>,
}

impl Plot<'_> {
    pub(super) fn draw(&self, frame: &mut Frame<'_>, model: &Model, area: Rect) {
        let width = usize::from(area.width).min(HISTORY_MAX);
        let from = self.values.len().saturating_sub(width);
        let seen = self.values.get(from..).unwrap_or_default();
        let (now, most) = (seen.last().copied().unwrap_or(0), seen.iter().copied().max().unwrap_or(0));
        let [title, bars, times] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
        let unit = self.unit;
        let short = format!("{}: {}", self.title, unit(now));
        let long = format!("{short} (most {})", unit(most));
        let fits = long.chars().count() <= usize::from(title.width);
        frame.render_widget(Line::from(if fits { long } else { short }), title);
        let scale = most.max(self.limit.unwrap_or(0)).max(1);
        // A value above zero is visible, however far below the limit.
        let least = scale.div_ceil(u64::from(bars.height).max(1) * STEPS);
        // Aligned to the right, where new values appear.
        let mut padded = vec![0; width - seen.len()];
        padded.extend(seen.iter().map(|value| if *value > 0 { (*value).max(least) } else { 0 }));
        let style = if model.colour { Style::new().fg(Color::Cyan) } else { Style::new() };
        frame.render_widget(Sparkline::default().data(padded).max(scale).style(style), bars);
        if let Some(limit) = self.limit {
            draw_limit(frame, model, bars, limit as f64 / scale as f64, &unit(limit));
        }
        frame.render_widget(Line::from(axis(width, seen.len(), &|back| model.age(back))), times);
    }
}

/// A dotted line with its value where no bar is. `height` is a share of the height of all bars.
fn draw_limit(frame: &mut Frame<'_>, model: &Model, bars: Rect, height: f64, value: &str) {
    let rows = f64::from(bars.height);
    let row = (rows - (height * rows).ceil()).clamp(0.0, (rows - 1.0).max(0.0)) as u16;
    let style = if model.colour { Style::new().fg(Color::Yellow) } else { Style::new() };
    let label = format!("\u{2504}\u{2504} limit {value} ");
    let mut marks = label.chars().chain(std::iter::repeat('\u{2504}'));
    for x in bars.left()..bars.right() {
        let mark = marks.next().unwrap_or('\u{2504}');
        if let Some(cell) = frame.buffer_mut().cell_mut((x, bars.top() + row))
            && cell.symbol() == " "
        {
            cell.set_char(mark).set_style(style);
        }
    }
}

/// A line with times on it, of a plot whose newest `shown` columns have values: `age` says how old one is, counted back
/// from the newest.
fn axis(width: usize, shown: usize, age: &dyn Fn(usize) -> Option<Duration>) -> String {
    let mut cells = vec!['\u{2500}'; width];
    let mut write = |from: usize, text: &str| {
        for (cell, c) in cells.iter_mut().skip(from).zip(text.chars()) {
            *cell = c;
        }
    };
    let newest = match age(0) {
        None => String::new(),
        Some(age) if age < NOW => " now".to_owned(),
        Some(age) => format!(" -{}", axis_duration(age)),
    };
    write(width.saturating_sub(newest.chars().count()), &newest);
    // At the left, and in the middle where there is space for it.
    let backs = [shown.saturating_sub(1), shown / 2];
    for (back, least) in backs.into_iter().zip([TIMES_APART, 2 * TIMES_APART]) {
        if let Some(age) = age(back).filter(|_| shown >= least) {
            write(width.saturating_sub(back + 1), &format!("-{} ", axis_duration(age)));
        }
    }
    cells.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_the_times_of_what_is_above_it() {
        let axis = |width, shown: usize, late: u64| {
            axis(width, shown, &|back| (back < shown).then(|| Duration::from_secs(back as u64 + late)))
        };
        assert_eq!(axis(39, 39, 0), "-38 s ─────────────-19 s ────────── now");
        assert_eq!(axis(39, 20, 0), "───────────────────-19 s ────────── now");
        assert_eq!(axis(39, 20, 30), "───────────────────-49 s ──────── -30 s");
        assert_eq!(axis(10, 3, 0), "────── now");
        assert_eq!(axis(10, 0, 0), "──────────");
        assert_eq!(axis(0, 3, 0), "");
    }
}
