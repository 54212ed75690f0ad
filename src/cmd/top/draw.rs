//! The screen: groups, plots of the chosen one, and what is wrong. Drawn for 80×24; larger screens show more. Problems are
//! marked with `!`, so that nothing depends on colour alone.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState, Wrap};

use super::model::Model;
use super::plot::{Plot, Unit};
use crate::cmd::consumers::consumers;
use crate::http::{GroupJson, SourceJson, VerdictJson};
use crate::plain::{counted, escape, number, rough_duration, size};
use crate::tail::SourceState;

/// Rows of groups that are shown at once; the list scrolls with the choice.
const GROUP_ROWS_MAX: u16 = 6;
/// Characters of a name in a question, so that the question fits on 60 columns.
const NAME_CHARS_ASKED: usize = 40;
/// Height of a plot with its title: on 24 rows, and on high screens.
const PLOT_ROWS_MIN: u16 = 4;
const PLOT_ROWS_MAX: u16 = 10;

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
    frame.render_widget(Paragraph::new(bottom_text(model)).wrap(Wrap { trim: false }), said);
    frame.render_widget(bottom_line(model), keys);
}

/// The keys, or the question that the next one answers.
fn bottom_line(model: &Model) -> Line<'static> {
    match &model.to_pause {
        Some(name) => {
            let name: String = escape(name).chars().take(NAME_CHARS_ASKED).collect();
            Line::from(format!("pause group {name}? y/n")).style(marked(model, Color::Yellow))
        }
        None => {
            Line::from("q quit   ↑ ↓ Tab choose a group   p pause   r resume   d dead letters").style(dim())
        }
    }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn marked(model: &Model, colour: Color) -> Style {
    let style = Style::new().add_modifier(Modifier::BOLD);
    if model.colour { style.fg(colour) } else { style }
}

fn title_line(model: &Model) -> Line<'static> {
    let place = escape(&model.place).into_owned();
    let (word, style) = match (&model.lost, &model.now) {
        (Some((why, since)), _) => {
            let gone = model.at.saturating_sub(*since);
            (
                format!("! no answer for {} s: {}; retrying", gone.as_secs(), escape(why)),
                marked(model, Color::Red),
            )
        }
        (None, Some(now)) if now.1.healthy => ("healthy".to_owned(), marked(model, Color::Green)),
        (None, Some(_)) => ("! unhealthy".to_owned(), marked(model, Color::Red)),
        (None, None) => ("connecting".to_owned(), dim()),
    };
    let mut spans = vec![Span::raw("spillq  "), Span::styled(word, style)];
    let paused = match model.paused().as_slice() {
        [] => None,
        [name] => Some(format!("  paused: group {}", escape(name))),
        several => Some(format!("  paused: {}", counted(several.len() as u64, "group"))),
    };
    spans.extend(paused.map(|paused| Span::styled(paused, marked(model, Color::Yellow))));
    // Last, because a long path may be cut off.
    spans.push(Span::raw(format!("  {place}")));
    Line::from(spans)
}

fn log_line(model: &Model) -> Line<'static> {
    let Some(now) = &model.now else { return Line::default() };
    let (log, process) = (&now.0.log, now.0.process);
    let is_reading = |source: &&SourceJson| SourceState::of_word(&source.state) == Some(SourceState::Reading);
    let reading = now.0.sources.iter().filter(is_reading).count();
    let mut text = format!(
        "{} so far, {} ({reading} reading), disk {}",
        counted(log.next_seq.saturating_sub(1), "line"),
        counted(now.0.sources.len() as u64, "file"),
        size(log.disk_bytes),
    );
    if let Some(resident) = process.resident_bytes {
        text += &format!(", memory {}", size(resident));
    }
    let mut spans = vec![Span::raw(text)];
    if let Some(full) = &log.full {
        spans.push(Span::styled(format!("  ! paused: {}", escape(full)), marked(model, Color::Red)));
    }
    Line::from(spans)
}

/// A column of the list of groups.
struct Column {
    title: &'static str,
    width: Constraint,
    /// Narrower screens do not show the column.
    from_width: u16,
    text: fn(&GroupJson) -> String,
}

/// Columns have the width of their longest text, and the name gets what is left: no state and no figure is cut off.
const COLUMNS: [Column; 6] = [
    column("state", 12, 0, |group| escape(&group.state).into_owned()),
    column("lag lines", 13, 40, |group| number(group.lag_lines)),
    column("lag", 10, 76, |group| size(group.lag_bytes)),
    column("oldest", 7, 60, oldest),
    column("leased", 7, 76, |group| number(group.leased)),
    column("dead", 7, 60, |group| number(group.dead_letters)),
];

const fn column(title: &'static str, width: u16, from_width: u16, text: fn(&GroupJson) -> String) -> Column {
    Column { title, width: Constraint::Length(width), from_width, text }
}

fn draw_groups(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| area.width >= column.from_width).collect();
    let header = std::iter::once("  group").chain(columns.iter().map(|column| column.title));
    let rows = model.groups().iter().map(|group| {
        let unhealthy = model.verdict(&group.group).is_some_and(|verdict| verdict.cause.is_some());
        let style = if unhealthy { marked(model, Color::Red) } else { Style::new() };
        let name = format!("{} {}", if unhealthy { '!' } else { ' ' }, escape(&group.group));
        let cells = std::iter::once(name).chain(columns.iter().map(|column| (column.text)(group)));
        Row::new(cells.map(Cell::from)).style(style)
    });
    let widths = std::iter::once(Constraint::Fill(1)).chain(columns.iter().map(|column| column.width));
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(dim()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(model.chosen()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn oldest(group: &GroupJson) -> String {
    group.lag_seconds.filter(|_| group.lag_lines > 0).map(rough_duration).unwrap_or_default()
}

fn draw_plots(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let name = model.chosen_group().map(|group| group.group.clone()).unwrap_or_default();
    let per_second = |value: u64| format!("{}/s", number(value));
    let count = |value: u64| number(value);
    let shown = escape(&name);
    let plot = |title: String, values, unit| Plot { title, values, unit, limit: None };
    let plots = [
        plot("lines in".to_owned(), model.lines_in(), &per_second as Unit<'_>),
        plot(format!("acked by {shown}"), model.lines_out(&name), &per_second),
        plot(format!("lag of {shown}"), model.lag(&name), &count),
        Plot { limit: model.disk_limit(), ..plot("disk".to_owned(), model.disk(), &size) },
        plot("memory".to_owned(), model.memory(), &size),
    ];
    let rows: [Rect; 3] = Layout::vertical([Constraint::Fill(1); 3]).areas(area);
    for (row, pair) in rows.into_iter().zip(plots.chunks(2)) {
        let cells: [Rect; 2] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(row);
        for (cell, plot) in cells.into_iter().zip(pair) {
            plot.draw(frame, model, cell);
        }
    }
}

fn bottom_text(model: &Model) -> Vec<Line<'static>> {
    if !model.notice.is_empty() {
        return model.notice.iter().map(|line| Line::from(escape(line).into_owned())).collect();
    }
    let mut lines = Vec::new();
    if let Some(verdict) = model.chosen_group().and_then(|group| model.verdict(&group.group)) {
        lines.extend(said(model, verdict));
    }
    for finding in model.findings() {
        lines.extend(said(model, finding));
    }
    let consumers = model.chosen_group().map(consumers).unwrap_or_default();
    lines.extend(consumers.iter().map(|line| Line::from(escape(line).into_owned())));
    lines
}

/// A verdict: what is wrong, what to do about it, and as much of the evidence as fits.
fn said(model: &Model, verdict: &VerdictJson) -> Vec<Line<'static>> {
    let Some(cause) = &verdict.cause else { return vec![Line::from(escape(&verdict.summary).into_owned())] };
    let mark = Span::styled(format!("! {}: ", escape(cause)), marked(model, Color::Red));
    let mut lines = vec![Line::from(vec![mark, Span::raw(escape(&verdict.summary).into_owned())])];
    for (word, step) in
        [("do", &verdict.next), ("or", &verdict.or)].iter().filter(|(_, step)| !step.is_empty())
    {
        lines.push(Line::from(format!("  {word}: {}", escape(step))));
    }
    lines.extend(verdict.evidence.iter().map(|evidence| Line::from(format!("  - {}", escape(evidence)))));
    lines
}
