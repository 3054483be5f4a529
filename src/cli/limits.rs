//! `sluice limits simulate`: what a limit would have refused of the requests in an access log. Contacts nobody, changes nothing.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::config::types::Rate;
use crate::policy::limits::limit::Limit;
use crate::policy::limits::quota::Quota;
use crate::policy::rate_limit::{By, Window};
use crate::simulate::limits::Log;

/// Find figures for limits.
#[derive(Subcommand)]
pub enum LimitsCommand {
    Simulate(SimulateArgs),
}

/// Tell what a limit would have refused of the requests in access logs: which callers, how many, and which figure would fit.
///
/// Requests are judged by the gateway's own code at the moments that the log says. Left out are those that were refused before a limit is
/// asked, such as for a token; those that a limit refused are judged like others. Percentiles are of a caller's requests in the windows of the
/// limit in which it came. Proposed is what the busiest caller needs to be refused nothing, without those who need more than ten times what the
/// one in the middle does.
#[derive(Args)]
pub struct SimulateArgs {
    /// An access log; may be repeated, `-` is standard input
    #[arg(long = "log", value_name = "FILE", required = true)]
    logs: Vec<PathBuf>,
    /// A rate such as `100/m`, or a quota such as `10000/day`
    #[arg(long, value_name = "LIMIT")]
    limit: String,
    /// What is counted by: `consumer`, `subject`, `client_ip` or `global`; of several, separated by commas, the first that a request has
    #[arg(long, value_name = "KEYS", value_delimiter = ',', default_value = "consumer,client_ip")]
    by: Vec<String>,
    /// The size of the bucket, where it is not the count of the rate
    #[arg(long, value_name = "NUMBER")]
    burst: Option<u32>,
    /// `fixed` or `sliding`
    #[arg(long, value_name = "WINDOW")]
    window: Option<String>,
    /// In which the days and months of a quota begin
    #[arg(long, value_name = "NAME")]
    time_zone: Option<String>,
    /// Only requests of this route; may be repeated
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// How many callers are shown
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    top: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Ten million callers fit.
const MEMORY: u64 = 512 << 20;

pub fn run(command: &LimitsCommand) -> ExitCode {
    match command {
        LimitsCommand::Simulate(args) => match simulate(args) {
            Ok(told) if args.json => super::print(&format!("{told:#}\n")),
            Ok(told) => super::print(&text(&told, &args.by.join(", "))),
            Err((why, code)) => super::complain(why, code),
        },
    }
}

fn simulate(args: &SimulateArgs) -> Result<Value, (String, u8)> {
    let wrong = |why: String| (why, 2);
    let by: Vec<By> = args.by.iter().map(|key| key_of(key)).collect::<Result<_, _>>().map_err(wrong)?;
    let window = match args.window.as_deref() {
        None => None,
        Some("fixed") => Some(Window::Fixed),
        Some("sliding") => Some(Window::Sliding),
        Some(other) => return Err(wrong(format!("--window {other}: expected `fixed` or `sliding`"))),
    };
    let (rate, quota) = (Rate::parse(&args.limit), Quota::parse(&args.limit));
    // `1000/h` is both; what it is called makes no difference here but for its windows.
    let quota = quota.filter(|_| rate.is_none());
    if rate.is_none() && quota.is_none() {
        return Err(wrong(format!("--limit {}: expected a rate such as `100/m`, or a quota such as `10000/day`", args.limit)));
    }
    let limit = Limit::of_command_line(rate, quota, args.burst, window, args.time_zone.clone(), by.clone()).map_err(wrong)?;
    let mut log = Log::default();
    for path in &args.logs {
        let read = match path == Path::new("-") {
            true => log.read(stdin().lock(), &by, &args.routes),
            false => File::open(path).and_then(|file| log.read(BufReader::with_capacity(1 << 20, file), &by, &args.routes)),
        };
        read.map_err(|e| (format!("{}: {e}", path.display()), 1))?;
    }
    if log.sampled > 0 {
        return Err((
            format!(
                "{} lines stand for others that `access_log.sample` left out: what a limit would refuse cannot be told from them",
                log.sampled
            ),
            1,
        ));
    }
    let told = log.simulate(&limit, &args.limit, MEMORY, args.top);
    // "Nobody would have been refused" is no answer where nobody was looked at.
    if told["requests"] == 0 && log.unusable > 0 {
        return Err((
            format!("none of {} lines is an access log's in JSON (`access_log.format: json`) that says who called", log.unusable),
            1,
        ));
    }
    Ok(told)
}

fn key_of(text: &str) -> Result<By, String> {
    match text.trim() {
        "consumer" => Ok(By::Consumer),
        "subject" => Ok(By::Subject),
        "client_ip" => Ok(By::ClientIp),
        "global" => Ok(By::Global),
        other => Err(format!("--by {other}: the access log says `consumer`, `subject` and `client_ip` of a caller; or `global`")),
    }
}

fn text(told: &Value, by: &str) -> String {
    let mut text = String::new();
    let number = |name: &str| told[name].as_u64().unwrap_or(0);
    let (requests, refused) = (number("requests"), number("refused"));
    let _ = writeln!(text, "{requests} requests of {} callers ({by}) in {} s", number("callers"), number("seconds"));
    let _ =
        writeln!(text, "left out: {} refused before limits are asked, {} lines that say too little", number("unseen"), number("unusable"));
    let share = if requests == 0 { 0.0 } else { refused as f64 * 100.0 / requests as f64 };
    let limit = told["limit"].as_str().unwrap_or_default();
    let _ = writeln!(text, "{limit} would have refused {refused} of them ({share:.1} %), of {} callers\n", number("refused_callers"));
    let str = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows = told["top"].as_array().cloned().unwrap_or_default();
    let width = rows.iter().map(|row| str(&row["caller"]).chars().count()).max().unwrap_or(0).max("CALLER".len());
    let per = str(&told["per"]);
    let head = ["REQUESTS", "REFUSED", &format!("P50/{per}"), &format!("P95/{per}"), &format!("P99/{per}"), &format!("MAX/{per}"), "NEEDS"]
        .map(str::to_owned);
    let _ = writeln!(text, "{:<width$}{}", "CALLER", head.map(|name| format!("  {name:>9}")).concat());
    for row in &rows {
        let cells = ["requests", "refused", "p50", "p95", "p99", "max", "needs"].map(|name| format!("  {:>9}", str(&row[name])));
        let _ = writeln!(text, "{:<width$}{}", str(&row["caller"]), cells.concat());
    }
    if let Some(proposed) = told["proposed"].as_str() {
        let names: Vec<_> = told["outlier_names"].as_array().into_iter().flatten().map(str).collect();
        let without = match (number("outliers"), names.as_slice()) {
            (0, _) | (_, []) => String::new(),
            (count, names) => format!(", without {count} who need ten times what the one in the middle does: {}", names.join(", ")),
        };
        let _ = writeln!(text, "\nproposed: {proposed}, with which none of the others would have been refused{without}");
    }
    if number("overflowed") > 0 {
        let _ = writeln!(text, "more callers than fit: {} requests were judged together", number("overflowed"));
    }
    text
}
