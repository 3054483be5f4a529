//! Every kind of mistake in a configuration: its stable code and what it means. A test holds that no code of the source is missing.

/// (code, one sentence).
pub const CODES: &[(&str, &str)] = &[
    ("access-log-target", "The access log cannot be written there."),
    ("address-taken", "Two listeners would be on the same address and port."),
    ("allow-empty", "An `allow` asks for nothing."),
    ("allow-never-met", "No caller could have what an `allow` asks for."),
    ("allow-without-auth", "An `allow` stands on a public route."),
    ("api-key-carrier", "An API key is looked for in no place or in two."),
    ("api-key-format", "No key, or every key, would have this format."),
    ("ask-ca", "A file of root certificates cannot be used."),
    ("ask-plain", "A server would be asked over plain HTTP, so that anybody on the way could answer."),
    ("ask-url", "A URL that the gateway is to ask is none, or not of the kind that is expected."),
    ("auth-apart", "Authenticators of a route that read tokens do not stand side by side."),
    ("auth-never-decides", "An authenticator stands behind another that takes every credential that it could take."),
    ("authenticator-kind", "An authenticator is of no kind or of two."),
    ("bad-claim", "A claim is neither a name nor a JSON Pointer."),
    ("bad-code", "The code of a fixed answer is not made of small letters, digits and hyphens."),
    ("bad-hash", "The hash of an API key is not 64 hex digits."),
    ("bad-header-name", "The name of a header is not one."),
    ("bad-header-value", "The value of a header could not be sent."),
    ("bad-host", "What is written as a host or a name of a certificate is none."),
    ("bad-name", "A name is not made of small letters, digits, `-` and `_`, or means something already."),
    ("bad-origin", "An origin is not a scheme, a host and perhaps a port."),
    ("bad-parameter-name", "The name of a query parameter is not one."),
    ("bad-path", "A path does not begin with `/` or holds what no path may hold."),
    ("bad-scope", "A scope holds characters that no scope may hold."),
    ("bad-status", "A status is not one that the answer could have."),
    ("bad-tag", "A tag's name or value is not a short word."),
    ("bad-target", "A target is not a host and a port."),
    ("bad-template", "A `{` in a template has no `}`."),
    ("bad-value", "A value is not written as its key expects it."),
    ("certificate-chain", "A chain is forwarded without the certificate that it stands behind."),
    ("certificate-unreachable", "Every name of a certificate is in another one of the same listener."),
    ("choose-one", "Of several keys that exclude each other, none or more than one is written."),
    ("clients-header-invalid", "The client's address cannot come in this header."),
    ("clients-without-proxies", "`clients` names no trusted proxy."),
    ("conditions-too-many", "A route has more conditions than are counted."),
    ("consumer-keys", "A consumer has keys, but nothing takes API keys."),
    ("consumer-name", "The name of a consumer cannot be the value of a header."),
    ("consumer-scopes", "A consumer has scopes but no keys."),
    ("consumer-unreachable", "A consumer has nothing by which it could be recognised."),
    ("contradicting-headers", "A header is both set and removed or added."),
    ("contradicting-rewrite", "A rewrite changes the path in two ways."),
    ("cors-any-and-others", "Beside `*`, other origins change nothing."),
    ("cors-any-with-credentials", "Any origin could send credentials."),
    ("cors-bad-header", "A header that scripts may use is not one."),
    ("cors-bad-method", "A method that scripts may use is not one."),
    ("cors-bad-origin", "An origin is not a scheme, a host and perhaps a port."),
    ("cors-duplicate", "Something stands twice in a list of `cors`."),
    ("cors-no-methods", "`cors` allows no method."),
    ("cors-no-origins", "`cors` allows no origin."),
    ("defined-twice", "A name or a section that stands once is defined in two places."),
    ("duplicate-header", "A header is changed twice."),
    ("duplicate-identity", "The same claim makes a token two consumers'."),
    ("duplicate-key", "A key is written twice in one mapping."),
    ("duplicate-policy", "Two bundles that are used together have the same policy."),
    ("duplicate-target", "A target stands twice in an upstream."),
    ("empty-file", "A file says nothing."),
    ("empty-list", "A list is empty where that could mean nothing."),
    ("empty-rewrite", "A rewrite changes nothing."),
    ("env-unset", "An environment variable is not set or empty, and there is no default."),
    ("equal-rank-routes", "Two routes can match the same request, and neither is more specific."),
    ("file-unreadable", "A file that a value refers to cannot be read."),
    ("grpc-upstream", "gRPC would go to an upstream that does not speak HTTP/2."),
    ("header-condition-invalid", "A condition on a header could never hold or has two readings."),
    ("header-forbidden", "A header that only the gateway writes would be changed."),
    ("header-name", "The name of a header is not one."),
    ("header-twice", "A header is changed in two ways at once."),
    ("host-pattern-invalid", "A host pattern is not one."),
    ("host-repeated", "A host stands twice in a match."),
    ("hosts-empty", "A match names no host."),
    ("identity-without-tokens", "A consumer is recognised by a claim where there are no tokens."),
    ("inert", "What is written could not have any effect."),
    ("inert-key", "A key of a fixed answer has no effect."),
    ("interpolation", "A `${` is not closed, not known or in a key."),
    ("introspection-client", "The gateway would ask an issuer as nobody."),
    ("ip-filter-both", "An ip filter both allows and denies."),
    ("ip-filter-empty", "An ip filter neither allows nor denies."),
    ("jwt-algorithm-mixed", "Algorithms for secrets and for public keys stand in one authenticator."),
    ("jwt-algorithm-unserved", "No key serves an algorithm."),
    ("jwt-key-file", "A file with keys cannot be read."),
    ("jwt-keys", "Keys come from no place or from two."),
    ("jwt-keys-unsound", "The text with the keys cannot be read, or its keys contradict each other."),
    ("jwt-no-usable-key", "No key of the set could verify a token."),
    ("jwt-secret-short", "A secret is shorter than its algorithm needs."),
    ("key-hash", "The hash of an API key cannot be that of a key."),
    ("limit-burst", "A bucket has no size."),
    ("limit-key-before-auth", "A limit counts by something that is not known before authentication."),
    ("limit-key-repeated", "A limit counts by the same twice."),
    ("limit-key-unreachable", "A limit has a key that is never reached."),
    ("limit-name", "A limit or plan is called what the quota of a plan is called in logs and headers."),
    ("limit-rate-and-quota", "A limit says both a rate and a quota."),
    ("limit-stage", "A limit counts by something that is not known yet where it is judged."),
    ("limit-too-slow", "A bucket takes too long to fill."),
    ("limit-without-key", "A limit has nothing to count by for some caller whom a route admits."),
    ("limit-without-rate", "A limit or plan does not say how much."),
    ("list-file", "A file of consumers or revocations cannot be read, or a line of it is wrong."),
    ("list-place", "A list is nowhere, or in a file and in the store: expected one."),
    ("listed-twice", "Something stands twice in one list."),
    ("listener-limit-key", "A limit of a listener counts by more than the address or all."),
    ("listener-limit-per-route", "A limit of a listener is `per: route` or `per: upstream`."),
    ("listeners-needed", "There are several listeners and a route does not say on which it is."),
    ("merge-key", "Merge keys (`<<`) are not read."),
    ("method-invalid", "A method is not one that a route can take."),
    ("method-repeated", "A method stands twice in a match."),
    ("methods-empty", "A match names no method."),
    ("methods-too-many", "A listener has too many uncommon methods."),
    ("mirror", "Copies of requests could not go to this upstream."),
    ("missing-key", "A key that is needed is not written."),
    ("missing-section", "A section without which nothing could be answered is not there."),
    ("network-covered", "A network is part of another in the same list."),
    ("network-never-matches", "A network matches no client."),
    ("never-allowed", "No caller could have what a route asks for."),
    ("no-targets", "An upstream has no target."),
    ("no-value", "A key is written without a value."),
    ("not-built", "A key is known but not built yet."),
    ("not-read", "A file in the folder would not be read."),
    ("not-supported", "A key or a word is known, and what it asks for is left out on purpose."),
    ("not-utf8", "A file is not UTF-8 text."),
    ("out-of-range", "A number, a time or a size is too small or too large."),
    ("path-pattern-invalid", "A path pattern is not one."),
    ("path-pattern-not-canonical", "A path pattern would never match, because requests are spelled otherwise by then."),
    ("prefix-mismatch", "A rewrite cuts a prefix that not every path of the route has."),
    ("proxy-repeated", "A network of trusted proxies stands twice in the list."),
    ("query-condition-invalid", "A condition on the query could never hold or has two readings."),
    ("reserved-header", "A header has a meaning of its own and cannot be used for this."),
    ("several-documents", "A file holds more than one YAML document."),
    ("shadow-without-allow", "`auth` is shadowed but `allow` is not."),
    ("shared-identity", "The same claim makes a token two consumers'."),
    ("shared-key", "The same API key belongs to two consumers."),
    ("shared-not-exact", "A limit is shared that several gateways could not count together well enough to mean anything."),
    ("shared-without-store", "A limit is shared, and there is no store over which."),
    ("standard", "A part of the configuration does not keep to what `standards` lays down."),
    ("sticky", "A cookie that keeps clients at their targets cannot be made as it is written."),
    ("store-place", "A store is nowhere, or in two ways: expected `redis`, `sentinel` or `cluster`."),
    ("tag", "YAML tags are not read."),
    ("targets-from", "Where an upstream's targets are found cannot be used."),
    ("time-zone", "The name of a time zone is none."),
    ("tls-file", "A certificate, key, OCSP answer, CA or revocation list cannot be read, or does not fit."),
    ("too-deep", "Mappings and lists are nested too deep."),
    ("too-large", "A file holds too many values, with its aliases written out."),
    ("unknown-capture", "A template names what the path of the route does not."),
    ("unknown-key", "A key is not known where it stands."),
    ("unknown-name", "A name leads to no definition."),
    ("unknown-word", "A value is none of the words that its key takes."),
    ("unreadable", "The configuration file or folder cannot be read."),
    ("unrecognisable", "A consumer has nothing by which it could be recognised."),
    ("unused", "A definition is used by nothing."),
    ("upstream-tls", "A file that `tls` of an upstream names cannot be read, or what it holds does not fit."),
    ("wrong-kind", "A name leads to something of another kind than is needed."),
    ("wrong-type", "A value is text, a number, a list or a mapping where another of these is expected."),
    ("yaml-syntax", "The file is not YAML."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The code in each `Diagnostic::at(place, "code", ..)`, `Diagnostic::nowhere("code", ..)` and `ReadError::new("code", ..)` of a source
    /// text, and of calls to closures `tell` and `fail` that make one.
    fn codes(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (call, skip) in [("Diagnostic::at(", 1), ("Diagnostic::nowhere(", 0), ("ReadError::new(", 0), (" tell(", 0), (" fail(", 0)] {
            for (at, _) in text.match_indices(call) {
                let arguments = arguments(&text[at + call.len()..]);
                // Where a code is chosen between two, both count.
                for word in arguments.get(skip).into_iter().flat_map(|a| a.split('"').skip(1).step_by(2)) {
                    if !word.contains(' ') {
                        found.push(word.to_owned());
                    }
                }
            }
        }
        found
    }

    /// The first arguments of a call, as they are written.
    fn arguments(text: &str) -> Vec<&str> {
        let (mut depth, mut quoted, mut start, mut all) = (0, false, 0, Vec::new());
        let mut before = ' ';
        for (at, c) in text.char_indices() {
            match c {
                '"' if before != '\\' => quoted = !quoted,
                _ if quoted => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => {
                    all.push(&text[start..at]);
                    return all;
                }
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    all.push(&text[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
            before = c;
        }
        all
    }

    fn sources(folder: &Path, out: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // Tests make up codes as they like.
                out.push_str(text.split("\n#[cfg(test)]").next().unwrap());
            }
        }
    }

    #[test]
    fn every_code_of_the_source_is_in_the_table_and_every_row_is_used() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let used: BTreeSet<String> = codes(&text).into_iter().collect();
        let listed: BTreeSet<String> = CODES.iter().map(|(code, _)| (*code).to_owned()).collect();
        assert!(used.len() > 30, "{used:?}");
        assert_eq!(used.difference(&listed).collect::<Vec<_>>(), [] as [&String; 0], "codes that are missing in CODES");
        assert_eq!(listed.difference(&used).collect::<Vec<_>>(), [] as [&String; 0], "codes in CODES that nothing raises");
    }

    #[test]
    fn the_table_is_sorted_without_repetitions() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_search_for_codes_finds_them() {
        let text = r#"Diagnostic::at(&a.place(1, "x"), "one", format!("{}", 1)) Diagnostic::nowhere("two", "m") ReadError::new(if a { "three" } else { "four" }, m)"#;
        assert_eq!(codes(text), ["one", "two", "three", "four"]);
    }
}
