//! `sluice echo`: an HTTP/1.1 upstream for trying any configuration.
//!
//! Reads the arguments, listens and stops on a signal. What is answered is decided in `crate::echo`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::echo::{Answers, serve};

/// Serve an HTTP/1.1 upstream for trying any configuration.
///
/// Without --answers each request is answered with 200 and its own description as JSON: method, path, query, headers in order,
/// and the size and SHA-256 of the body. WebSocket connections get their frames back.
#[derive(Args, Debug)]
pub struct EchoArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3001")]
    pub address: SocketAddr,
    /// The name that descriptions show, to tell several apart
    #[arg(long, default_value = "echo")]
    pub name: String,
    /// A YAML file of fixed answers by path, such as `/orders/{id}: { status: 201, json: { ok: true }, delay: 250ms }`
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
}

/// How long started requests may take after a signal.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM. 0: stopped; 1: could not listen; 78: the file of answers is not right.
pub fn run(args: EchoArgs) -> ExitCode {
    let EchoArgs { address, name, answers } = args;
    let answers = match answers {
        None => Answers::default(),
        Some(path) => {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    eprintln!("error: {}: {error}", path.display());
                    return ExitCode::from(78);
                }
            };
            match Answers::parse(&text) {
                Ok(answers) => answers,
                Err(error) => {
                    eprintln!("error: {}:{error}", path.display());
                    return ExitCode::from(78);
                }
            }
        }
    };
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(listen(address, &name, answers)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: listen on {address}: {error}");
            ExitCode::from(1)
        }
    }
}

async fn listen(address: SocketAddr, name: &str, answers: Answers) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    eprintln!("echo `{name}` listens on {}: {answers}", listener.local_addr()?);
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    serve(listener, name, answers, DRAIN, stop).await;
    Ok(())
}
