//! `sluice explain`: what would become of requests, and why. Calls what the proxy calls; contacts nobody.

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::compile;
use crate::config::plan::Gateway;
use crate::ctx::Now;
use crate::policy::client_certificate::facts::described;
use crate::simulate::{Asked, SOMEBODY, Said, Shown, simulate, tell, text};
use crate::state::State;

/// Explain what would become of a request. Contacts nobody.
///
/// Shown are the route and why the others that were near lost, the verdict of each policy that the route has, in order, the
/// limits with their keys, the upstream, the headers that are added and removed, and the status and code of an answer of the
/// gateway's own. Credentials are shown as [redacted], headers made by interpolation as [interpolated].
///
/// With --requests many are explained, one JSON object a line: `url`, and optionally `method`, `headers` (a mapping, or pairs in a
/// list), `listener`, `from`, `claims`, `certificate`, `consumer`; or, for what no client would send, `head`: all bytes of a request head as
/// text. All are taken to come at the same moment, one after the other: each counts in the limits of those after it.
#[derive(Args)]
pub struct ExplainArgs {
    /// A file, or a folder whose *.yaml are one configuration
    config: PathBuf,
    /// Such as 'GET https://host/path?query'; the method may be left out
    #[arg(required_unless_present = "requests")]
    request: Option<String>,
    /// A header of the request, as 'name: value'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener it arrives on; the first one where there are several
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The address it comes from
    #[arg(long, value_name = "ADDRESS", default_value_t = SOMEBODY)]
    from: IpAddr,
    /// Claims as JSON that stand for a verified token
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// The client's certificate: a PEM file, which is verified as the listener does it, or its facts as JSON, such as '{"uri": "spiffe://a/b"}'
    #[arg(long, value_name = "FILE|JSON")]
    certificate: Option<String>,
    /// A consumer whose key is taken to have been sent
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// A file of requests, one JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["request", "headers", "listener", "from", "claims", "certificate", "consumer"])]
    requests: Option<PathBuf>,
    /// Print JSON; with --requests one line a request
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ExplainArgs) -> ExitCode {
    let gateway = match compile::load(&args.config, &super::environment, &State::default(), None) {
        Ok(gateway) => gateway,
        Err(mistakes) => return super::refuse(&mistakes),
    };
    let now = crate::clock::now();
    if let Some(file) = &args.requests {
        return many(&gateway, file, now, args.json);
    }
    match asked(args).and_then(|asked| explain(&gateway, &asked, now)) {
        Ok(told) => super::print(&if args.json { format!("{told:#}\n") } else { text(&told) }),
        Err(why) => super::complain(why, 2),
    }
}

fn explain(gateway: &Gateway, asked: &Asked, now: Now) -> Result<serde_json::Value, String> {
    simulate(gateway, &gateway.buckets, asked, now, true).map(|outcome| tell(gateway, &outcome))
}

/// Explains line by line, so that a file may be longer than memory.
fn many(gateway: &Gateway, file: &std::path::Path, now: Now, json: bool) -> ExitCode {
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        match std::fs::File::open(file) {
            Ok(file) => Box::new(std::io::BufReader::new(file)),
            Err(e) => return super::complain(format_args!("{}: {e}", file.display()), 2),
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (at, line) in input.lines().enumerate() {
        let told = line.map_err(|e| e.to_string()).and_then(|line| match line.trim() {
            "" => Ok(None),
            line => explain(gateway, &Asked::from_json(line)?, now).map(Some),
        });
        let written = match told {
            Ok(None) => continue,
            Ok(Some(told)) if json => writeln!(out, "{told}"),
            Ok(Some(told)) => writeln!(out, "{}", text(&told)),
            Err(why) => {
                let _ = out.flush();
                return super::complain(format_args!("{}:{}: {why}", file.display(), at + 1), 2);
            }
        };
        if let Err(e) = written {
            return super::written(Err(e));
        }
    }
    super::written(out.flush())
}

fn asked(args: &ExplainArgs) -> Result<Asked, String> {
    let request = args.request.as_deref().unwrap_or_default().trim();
    let (method, url) = request.split_once(' ').unwrap_or(("GET", request));
    let mut headers = Vec::new();
    for header in &args.headers {
        // What is no header may still be a credential.
        let (name, value) = header.split_once(':').ok_or("`-H` takes a header such as 'name: value'; one has no colon")?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let claims = match &args.claims {
        Some(text) => Some(serde_json::from_str(text).map_err(|e| format!("--claims: {e}"))?),
        None => None,
    };
    let said = Said::Described { method: method.to_owned(), url: url.trim().to_owned(), headers };
    let certificate = args.certificate.as_deref().map(certificate).transpose().map_err(|why| format!("--certificate: {why}"))?;
    Ok(Asked {
        said,
        listener: args.listener.clone(),
        from: args.from,
        claims,
        certificate,
        consumer: args.consumer.clone(),
        revocable: true,
    })
}

fn certificate(text: &str) -> Result<Shown, String> {
    if text.trim_start().starts_with('{') {
        let told = serde_json::from_str(text).map_err(|e| e.to_string())?;
        return described(&told).map(|told| Shown::Described(told.into()));
    }
    let chain: Vec<_> = CertificateDer::pem_file_iter(text).and_then(Iterator::collect).map_err(|e| format!("{text}: {e}"))?;
    if chain.is_empty() { Err(format!("{text}: holds no certificate in PEM")) } else { Ok(Shown::Chain(chain)) }
}
