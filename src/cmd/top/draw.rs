//! The screen: groups, plots of the chosen one, and what is wrong. Drawn for 80×24, and uses more where there is more.
//! Whatever is ill is marked with `!`, so that nothing is told by colour alone.

use std::time::Duration;

use bytesize::ByteSize;
use indicatif::HumanCount;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState, Wrap};

use super::model::{HISTORY_MAX, Model};
use crate::http::{GroupJson, SourceJson, VerdictJson};
use crate::plain::plain;
use crate::tail::SourceState;

/// Rows of groups that are shown at once; the list moves with the choice.
const GROUP_ROWS_MAX: u16 = 6;
/// A plot is so high, title included: on 24 rows, and on high screens.
const PLOT_ROWS_MIN: u16 = 4;
const PLOT_ROWS_MAX: u16 = 10;

/// How a value is written.
type Unit<'u> = &'u dyn Fn(u64) -> String;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let groups = u16::try_from(model.groups().len()).unwrap_or(u16::MAX).clamp(1, GROUP_ROWS_MAX);
    let plot_rows = (frame.area().height / 6).clamp(PLOT_ROWS_MIN, PLOT_ROWS_MAX);
    let [title, log, list, plots, said, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(groups + 1),
        Constraint::Length(3 * plot_rows),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title_line(model), title);
    frame.render_widget(log_line(model), log);
    draw_groups(frame, model, list);
    draw_plots(frame, model, plots);
    frame.render_widget(Paragraph::new(what_is_said(model)).wrap(Wrap { trim: false }), said);
    frame.render_widget(
        Line::from("q quit   ↑ ↓ Tab choose a group   p pause   r resume   d dead letters").style(dim()),
        keys,
    );
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn marked(model: &Model, colour: Color) -> Style {
    let style = Style::new().add_modifier(Modifier::BOLD);
    if model.colour { style.fg(colour) } else { style }
}

fn title_line(model: &Model) -> Line<'static> {
    let place = plain(&model.place).into_owned();
    let (word, style) = match (&model.lost, &model.now) {
        (Some((why, since)), _) => {
            let gone = model.at.saturating_sub(*since);
            (
                format!("! no answer for {}: {}; asking again", seconds(gone), plain(why)),
                marked(model, Color::Red),
            )
        }
        (None, Some(now)) if now.1.healthy => ("well".to_owned(), marked(model, Color::Green)),
        (None, Some(_)) => ("! something is wrong".to_owned(), marked(model, Color::Red)),
        (None, None) => ("asking".to_owned(), dim()),
    };
    // A long path is what may be cut off.
    Line::from(vec![Span::raw("spillq  "), Span::styled(word, style), Span::raw(format!("  {place}"))])
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn log_line(model: &Model) -> Line<'static> {
    let Some(now) = &model.now else { return Line::default() };
    let (log, process) = (&now.0.log, now.0.process);
    let is_reading = |source: &&SourceJson| SourceState::of_word(&source.state) == Some(SourceState::Reading);
    let reading = now.0.sources.iter().filter(is_reading).count();
    let mut text = format!(
        "{} lines so far, {} files ({reading} reading), disk {}",
        HumanCount(log.next_seq.saturating_sub(1)),
        HumanCount(now.0.sources.len() as u64),
        ByteSize(log.disk_bytes),
    );
    if let Some(resident) = process.resident_bytes {
        text += &format!(", memory {}", ByteSize(resident));
    }
    let mut spans = vec![Span::raw(text)];
    if let Some(full) = &log.full {
        spans.push(Span::styled(format!("  ! pauses: {}", plain(full)), marked(model, Color::Red)));
    }
    Line::from(spans)
}

fn draw_groups(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let header = ["  group", "state", "lag lines", "lag", "oldest", "leased", "dead"];
    let rows = model.groups().iter().map(|group| {
        let ill = model.verdict(&group.group).is_some_and(|verdict| verdict.cause.is_some());
        let style = if ill { marked(model, Color::Red) } else { Style::new() };
        Row::new(cells(group, ill).map(Cell::from)).style(style)
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(13),
        Constraint::Length(14),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(8),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(dim()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(model.chosen()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn cells(group: &GroupJson, ill: bool) -> [String; 7] {
    let oldest = group.lag_seconds.filter(|_| group.lag_lines > 0).map(age).unwrap_or_default();
    [
        format!("{} {}", if ill { '!' } else { ' ' }, plain(&group.group)),
        plain(&group.state).into_owned(),
        HumanCount(group.lag_lines).to_string(),
        ByteSize(group.lag_bytes).to_string(),
        oldest,
        HumanCount(group.leased).to_string(),
        HumanCount(group.dead_letters).to_string(),
    ]
}

fn age(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

fn draw_plots(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let name = model.chosen_group().map(|group| group.group.clone()).unwrap_or_default();
    let per_second = |value: u64| format!("{}/s", HumanCount(value));
    let count = |value: u64| HumanCount(value).to_string();
    let bytes = |value: u64| ByteSize(value).to_string();
    let shown = plain(&name);
    let plots: [(String, Vec<u64>, Unit<'_>); 6] = [
        ("lines in".to_owned(), model.lines_in(), &per_second),
        (format!("acked by {shown}"), model.lines_out(&name), &per_second),
        (format!("lag of {shown}"), model.lag(&name), &count),
        ("disk".to_owned(), model.disk(), &bytes),
        ("memory".to_owned(), model.memory(), &bytes),
        (String::new(), Vec::new(), &count),
    ];
    let rows: [Rect; 3] = Layout::vertical([Constraint::Fill(1); 3]).areas(area);
    for (row, pair) in rows.into_iter().zip(plots.chunks(2)) {
        let cells: [Rect; 2] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(row);
        for (cell, (title, values, unit)) in cells.into_iter().zip(pair) {
            if !title.is_empty() {
                draw_plot(frame, model, cell, title, values, *unit);
            }
        }
    }
}

/// The newest values that fit, the newest at the right.
fn draw_plot(frame: &mut Frame<'_>, model: &Model, area: Rect, title: &str, values: &[u64], unit: Unit<'_>) {
    let width = usize::from(area.width).min(HISTORY_MAX);
    let from = values.len().saturating_sub(width);
    let seen = values.get(from..).unwrap_or_default();
    let (now, most) = (seen.last().copied().unwrap_or(0), seen.iter().copied().max().unwrap_or(0));
    let title = format!("{title}: {} (most {})", unit(now), unit(most));
    // To the right, where new values come in.
    let mut padded = vec![0; width - seen.len()];
    padded.extend_from_slice(seen);
    let style = if model.colour { Style::new().fg(Color::Cyan) } else { Style::new() };
    let plot =
        Sparkline::default().block(Block::new().title(title)).data(padded).max(most.max(1)).style(style);
    frame.render_widget(plot, area);
}

fn what_is_said(model: &Model) -> Vec<Line<'static>> {
    if !model.notice.is_empty() {
        return model.notice.iter().map(|line| Line::from(plain(line).into_owned())).collect();
    }
    let mut lines = Vec::new();
    if let Some(verdict) = model.chosen_group().and_then(|group| model.verdict(&group.group)) {
        lines.extend(said(model, verdict));
    }
    for finding in model.findings() {
        lines.extend(said(model, finding));
    }
    lines
}

/// A verdict in three lines: what, on which evidence, and the next command.
fn said(model: &Model, verdict: &VerdictJson) -> Vec<Line<'static>> {
    let Some(cause) = &verdict.cause else { return vec![Line::from(plain(&verdict.summary).into_owned())] };
    let mark = Span::styled(format!("! {}: ", plain(cause)), marked(model, Color::Red));
    let mut lines = vec![Line::from(vec![mark, Span::raw(plain(&verdict.summary).into_owned())])];
    if !verdict.next.is_empty() {
        lines.push(Line::from(format!("  next: {}", plain(&verdict.next))));
    }
    lines.extend(verdict.evidence.iter().map(|evidence| Line::from(format!("  - {}", plain(evidence)))));
    lines
}
