//! `sluice routes`: who may call what, and where it goes. The order is the order of the file; it decides nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::compile;
use crate::config::plan::Shown;
use crate::state::State;

/// List the routes of a configuration.
#[derive(Args)]
pub struct RoutesArgs {
    /// A file, or a folder whose *.yaml are one configuration
    config: PathBuf,
    /// Only those that need no credential, shadowed authentication included
    #[arg(long)]
    public: bool,
}

const HEAD: [&str; 7] = ["ROUTE", "HOST", "PATH", "METHODS", "AUTH", "LIMITS", "UPSTREAM"];

pub fn run(args: &RoutesArgs) -> ExitCode {
    let gateway = match compile::load(&args.config, &super::environment, &State::default(), None) {
        Ok(gateway) => gateway,
        Err(mistakes) => return super::refuse(&mistakes),
    };
    let several = gateway.listeners.len() > 1;
    let mut rows: Vec<Vec<String>> = vec![HEAD.iter().map(|head| (*head).to_owned()).collect()];
    if several {
        rows[0].push("LISTENERS".to_owned());
    }
    for route in gateway.routes.iter().filter(|route| !args.public || route.shown.is_public) {
        let mut row = cells(&route.name, &route.shown);
        if several {
            row.push(route.shown.listeners.join(","));
        }
        rows.push(row);
    }
    super::print(&table(&rows))
}

fn cells(name: &str, shown: &Shown) -> Vec<String> {
    let or = |list: &[String], otherwise: &str| if list.is_empty() { otherwise.to_owned() } else { list.join(",") };
    let mut path = shown.path.clone();
    if !shown.conditions.is_empty() {
        path.push_str(&format!(" [{}]", shown.conditions.join("; ")));
    }
    vec![
        name.to_owned(),
        or(&shown.hosts, "*"),
        path,
        or(&shown.methods, "*"),
        or(&shown.auth, "public"),
        or(&shown.limits, "-"),
        shown.target.clone(),
    ]
}

/// Columns as wide as their widest cell, two spaces apart, nothing at the end of a line.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
