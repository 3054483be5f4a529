//! Targets in a file of their own, which is read again whenever it changes.
//!
//! Decides that what cannot be used as a whole is not used at all. What a target looks like is decided in `members.rs`.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::MOST;
use super::follow::Follower;
use crate::config::diagnostic::{Diagnostic, Source, sort};
use crate::config::files_read::Look;
use crate::config::interpolate::why;
use crate::config::read::read;
use crate::config::types::At;
use crate::config::yaml;
use crate::relay::targets::members::{Member, TargetSettings, compile_targets};

/// A file of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetsFile {
    path: PathBuf,
    /// Whether targets need no name of their own to be verified by.
    has_name: bool,
}

/// Bytes of a file; ten thousand targets take less.
const LARGEST: u64 = 4 << 20;
/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// So many mistakes are told in the log.
const TOLD: usize = 3;

// === impl TargetsFile ===

impl TargetsFile {
    /// As a configuration names it; a relative path is relative to the file it stands in.
    pub(super) fn new(path: &At<String>, has_name: bool) -> TargetsFile {
        TargetsFile { path: path.place.source.path.parent().unwrap_or(Path::new("")).join(&path.value), has_name }
    }

    /// Reads it as a whole.
    ///
    /// # Errors
    /// Every mistake in it; one without a place is about the file itself.
    pub(super) fn read(&self) -> Result<Vec<Member>, Vec<Diagnostic>> {
        let text = self.text().map_err(|why| vec![Diagnostic::nowhere("targets-from", format!("`{}` {why}", self.path.display()))])?;
        let source = Arc::new(Source::new(&self.path, text));
        let (root, mut wrong) = yaml::parse(&source)?;
        let place = root.place.clone();
        let listed = read::<Vec<At<TargetSettings>>>("targets", &place, &root, &mut wrong);
        let members = listed.map(|value| compile_targets(&At { value, place: place.clone() }, &mut wrong)).unwrap_or_default();
        if members.len() > MOST {
            wrong.push(super::mistake(&place, format!("{} targets: expected at most {MOST}", members.len())));
        }
        if !self.has_name && members.iter().any(|member| member.address.socket().is_some()) {
            let message = "a Unix socket has no name that a certificate could be for: expected `tls.server_name` in the configuration";
            wrong.push(super::mistake(&place, message));
        }
        sort(&mut wrong);
        if wrong.is_empty() { Ok(members) } else { Err(wrong) }
    }

    fn text(&self) -> Result<String, String> {
        let cannot = |e: &std::io::Error| format!("cannot be read: {}", why(e));
        let meta = std::fs::metadata(&self.path).map_err(|e| cannot(&e))?;
        // A pipe or a device could keep the gateway waiting.
        if !meta.is_file() {
            return Err("is not a regular file".to_owned());
        }
        if meta.len() > LARGEST {
            return Err(format!("is larger than {} MiB", LARGEST >> 20));
        }
        let mut text = String::new();
        let file = std::fs::File::open(&self.path).map_err(|e| cannot(&e))?;
        file.take(LARGEST).read_to_string(&mut text).map_err(|e| cannot(&e))?;
        Ok(text)
    }

    /// Reads it again whenever it has changed and two looks in a row were the same, so that a half-written file is not read.
    pub(super) async fn keep(&self, follower: &mut Follower) {
        // What the snapshot was made of may be older than this look: the first look is a change.
        let (mut used, mut last) = (None, Look::at(&self.path));
        let mut is_first = true;
        loop {
            if !is_first {
                tokio::time::sleep(EVERY).await;
                let now = Look::at(&self.path);
                if now == used || now != last {
                    last = now;
                    continue;
                }
            }
            is_first = false;
            used = last.clone();
            let file = self.clone();
            // Thousands of lines take a while; probes and signals go on meanwhile.
            match tokio::task::spawn_blocking(move || file.read()).await {
                Ok(Ok(members)) => follower.answered(members),
                Ok(Err(wrong)) => drop(follower.failed(in_words(&wrong))),
                Err(_) => drop(follower.failed("a fault of the gateway's own while it was read".to_owned())),
            }
        }
    }
}

fn in_words(wrong: &[Diagnostic]) -> String {
    let told = wrong.iter().take(TOLD).map(|one| match &one.place {
        Some(place) => format!("line {}: {}", place.line, one.message),
        None => one.message.clone(),
    });
    let more = if wrong.len() > TOLD { "; .." } else { "" };
    told.collect::<Vec<_>>().join("; ") + more
}

impl fmt::Display for TargetsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.path.display())
    }
}
