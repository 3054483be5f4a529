//! `sluice test`: runs the `tests:` of a configuration, without a socket.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config::compile;
use crate::simulate::{Tested, run_tests};
use crate::state::State;

/// Run the `tests:` of a configuration. Contacts nobody.
///
/// Each has limits of its own, so that no test depends on another. 1 where one fails.
#[derive(Args)]
pub struct TestArgs {
    /// A file, or a folder whose *.yaml are one configuration
    config: PathBuf,
    /// How the results are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Junit,
}

pub fn run(args: &TestArgs) -> ExitCode {
    let gateway = match compile::load(&args.config, &super::environment, &State::default(), None) {
        Ok(gateway) => gateway,
        Err(mistakes) => return super::refuse(&mistakes),
    };
    let results = run_tests(&gateway);
    let failed = results.iter().filter(|result| result.failure.is_some()).count();
    let printed = super::print(&match args.format {
        Format::Text => text(&results, failed),
        Format::Junit => junit(&results, failed),
    });
    if failed > 0 { ExitCode::FAILURE } else { printed }
}

fn text(results: &[Tested], failed: usize) -> String {
    let mut text = String::new();
    for Tested { name, failure } in results {
        text.push_str(&match failure {
            None => format!("ok      {name}\n"),
            Some(why) => format!("FAILED  {name}\n        {why}\n"),
        });
    }
    text.push_str(&format!("{} passed, {failed} failed\n", results.len() - failed));
    text
}

fn junit(results: &[Tested], failed: usize) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"sluice\" tests=\"{}\" failures=\"{failed}\">\n",
        results.len()
    );
    for Tested { name, failure } in results {
        xml.push_str(&match failure {
            None => format!("<testcase classname=\"tests\" name=\"{}\"/>\n", escape(name)),
            Some(why) => {
                format!("<testcase classname=\"tests\" name=\"{}\"><failure message=\"{}\"/></testcase>\n", escape(name), escape(why))
            }
        });
    }
    xml.push_str("</testsuite>\n</testsuites>\n");
    xml
}

/// For an attribute of XML; what XML 1.0 cannot hold at all becomes a question mark.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\n' | '\t' => " ".to_owned(),
            c if c.is_control() => "?".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stands_in_both_formats() {
        let results = [
            Tested { name: "a < b".to_owned(), failure: Some("status: expected `200`, found \"401\"".to_owned()) },
            Tested { name: "c".to_owned(), failure: None },
        ];
        assert!(text(&results, 1).contains("FAILED  a < b\n        status: expected"));
        assert!(text(&results, 1).ends_with("1 passed, 1 failed\n"));
        let xml = junit(&results, 1);
        assert!(
            xml.contains("tests=\"2\" failures=\"1\"")
                && xml.contains("name=\"a &lt; b\"><failure message=\"status: expected `200`, found &quot;401&quot;\"/>")
        );
    }
}
