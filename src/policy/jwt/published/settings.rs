//! Reads where a provider's key set is and how it is fetched. Decides what may be asked in plain text, and which times make sense.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::ask::{Address, Way, written as ask};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::policy::jwt::JwtAlgorithm;
use crate::policy::jwt::algorithm::KeyType;
use crate::policy::jwt::keys::JwtKeysSettings;

/// When a key set is fetched again. Within these bounds its `Cache-Control` decides; where it says nothing, ten minutes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshSettings {
    /// Not before. Default 1m.
    pub soonest: Option<At<Period>>,
    /// Not after. Default 1h.
    pub latest: Option<At<Period>>,
}

/// Where a key set comes from and what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub authenticator: String,
    pub origin: Origin,
    pub issuer: String,
    pub algorithms: Vec<JwtAlgorithm>,
    pub soonest: Duration,
    pub latest: Duration,
    pub max_age: Option<Duration>,
    pub plain_http: bool,
    pub way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Url(Address),
    Discovery(Address),
}

const SOONEST: Period = Period::seconds(60);
const LATEST: Period = Period::seconds(3600);

// === impl Source ===

impl Source {
    /// `None` where the keys are not fetched.
    ///
    /// # Errors
    /// All mistakes.
    pub fn compile(
        name: &str,
        settings: &At<JwtKeysSettings>,
        issuer: &str,
        algorithms: &[At<JwtAlgorithm>],
    ) -> Result<Option<Source>, Vec<Diagnostic>> {
        let JwtKeysSettings { file: _, inline: _, secret: _, url, discovery, refresh, max_age, plain_http, proxy, ca } = &settings.value;
        let mut wrong = Vec::new();
        let origin = match (url, discovery) {
            (Some(url), None) => ask::url(url, &mut wrong).map(Origin::Url),
            (None, Some(discovery)) => document(discovery, &mut wrong).map(Origin::Discovery),
            (None, None) | (Some(_), Some(_)) => {
                for (key, place) in fetching_keys(&settings.value) {
                    let message = format!("`{key}` has no effect: the keys are not fetched");
                    wrong.push(Diagnostic::at(&place, "inert", message).help("it belongs beside `url` or `discovery`"));
                }
                return if wrong.is_empty() { Ok(None) } else { Err(wrong) };
            }
        };
        let written = url.as_ref().or(discovery.as_ref()).map_or(&settings.place, |text| &text.place);
        for algorithm in algorithms.iter().filter(|algorithm| algorithm.key_type() == KeyType::Secret) {
            let message = format!("`{}` needs a secret, but the keys are public ones", algorithm.as_str());
            wrong.push(
                Diagnostic::at(&algorithm.place, "jwt-algorithm-mixed", message).help("write one authenticator for each kind of key"),
            );
        }
        let is_plain = plain_http.as_ref().is_some_and(|plain| plain.value);
        // A discovery document may lead to a key set elsewhere.
        let only = if let Some(Origin::Url(address)) = &origin { Some(address) } else { None };
        if let Some(Origin::Url(address) | Origin::Discovery(address)) = &origin {
            ask::plain(address, written, is_plain, "who can change the answer on its way can sign tokens", &mut wrong);
        }
        if let Some(address) = only {
            ask::needless_plain(address, plain_http.as_ref(), &mut wrong);
        }
        let proxy = ask::proxy(proxy.as_ref(), &mut wrong);
        let trust = ask::trust(ca.as_ref(), "provider", only, &mut wrong);
        let (soonest, latest) = refresh.as_ref().map_or((None, None), |refresh| (refresh.soonest.as_ref(), refresh.latest.as_ref()));
        let mut bound = |written: Option<&At<Period>>, default: Period| {
            if let Some(period) = written.filter(|period| period.value < Period::seconds(1)) {
                wrong.push(Diagnostic::at(
                    &period.place,
                    "out-of-range",
                    format!("`{}` is out of range: expected at least 1s", period.value),
                ));
            }
            written.map_or(default, |period| period.value)
        };
        let soonest = bound(soonest, SOONEST.min(latest.map_or(SOONEST, |latest| latest.value)));
        let latest_written = latest;
        let latest = bound(latest, LATEST.max(soonest));
        if let Some(written) = latest_written
            && latest < soonest
        {
            let message = format!("`latest` is {latest}, sooner than `soonest`, which is {soonest}");
            wrong.push(Diagnostic::at(&written.place, "out-of-range", message));
        }
        if let Some(max_age) = max_age
            && max_age.value <= latest
        {
            let message =
                format!("`max_age` is {}: a set that is fetched every {latest} would be too old between two fetches", max_age.value);
            wrong.push(
                Diagnostic::at(&max_age.place, "out-of-range", message).help("it is for outages: expected more than `refresh.latest`"),
            );
        }
        let (Some(origin), true) = (origin, wrong.is_empty()) else { return Err(wrong) };
        Ok(Some(Source {
            authenticator: name.to_owned(),
            origin,
            issuer: issuer.to_owned(),
            algorithms: algorithms.iter().map(|algorithm| algorithm.value).collect(),
            soonest: soonest.0,
            latest: latest.0,
            max_age: max_age.as_ref().map(|max_age| max_age.value.0),
            plain_http: is_plain,
            way: Way { proxy, trust },
        }))
    }

    /// Where the set is and when it is fetched, for `explain`. How old it is only the process that runs knows.
    pub fn told(&self) -> String {
        let how = match self.origin {
            Origin::Url(_) => "fetched from",
            Origin::Discovery(_) => "found by",
        };
        let max_age = self.max_age.map(|max_age| format!(", used for {} at most", Period(max_age))).unwrap_or_default();
        format!("{how} {} every {} to {}{max_age}", self.origin, Period(self.soonest), Period(self.latest))
    }

    /// Equal where the same provider publishes the same set.
    pub fn identity(&self) -> String {
        format!("{} of {}", self.origin, self.issuer)
    }

    /// The name of the file in which the set is stored.
    pub fn file(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.identity().as_bytes());
        let hex: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("keys-{hex}.json")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Url(address) | Origin::Discovery(address) => address.fmt(f),
        }
    }
}

/// The keys that only matter where something is fetched, and where they are written.
fn fetching_keys(settings: &JwtKeysSettings) -> Vec<(&'static str, crate::config::diagnostic::Place)> {
    let JwtKeysSettings { file: _, inline: _, secret: _, url: _, discovery: _, refresh, max_age, plain_http, proxy, ca } = settings;
    let mut all = Vec::new();
    all.extend(refresh.as_ref().map(|at| ("refresh", at.place.clone())));
    all.extend(max_age.as_ref().map(|at| ("max_age", at.place.clone())));
    all.extend(plain_http.as_ref().map(|at| ("plain_http", at.place.clone())));
    all.extend(proxy.as_ref().map(|at| ("proxy", at.place.clone())));
    all.extend(ca.as_ref().map(|at| ("ca", at.place.clone())));
    all
}

/// OpenID Connect Discovery 1.0 section 4, RFC 8414 section 3.
fn document(text: &At<String>, wrong: &mut Vec<Diagnostic>) -> Option<Address> {
    let address = ask::url(text, wrong)?;
    if address.target.contains("/.well-known/") {
        return Some(address);
    }
    let message = format!("`{}` is not the URL of a discovery document", text.value);
    let help = format!("write `{}/.well-known/openid-configuration`", text.trim_end_matches('/'));
    wrong.push(Diagnostic::at(&text.place, "ask-url", message).help(help));
    None
}
