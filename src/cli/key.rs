//! `sluice key new` and `sluice key hash`: makes API keys, and the hashes that the configuration holds. Stores nothing.

use std::io::BufRead;
use std::process::ExitCode;

use clap::Subcommand;

/// Make an API key, or hash one for the configuration.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a new key and print it with its hash. The key is shown this once.
    New {
        /// What the key begins with.
        #[arg(long, default_value = "sk_")]
        prefix: String,
        /// How many characters it has, the prefix included; 32 random ones at least.
        #[arg(long, default_value_t = 40)]
        length: usize,
    },
    /// Read a key from standard input and print its hash.
    Hash,
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 32 characters of 62 are 190 bits.
const LEAST_RANDOM: usize = 32;

pub fn run(command: &KeyCommand) -> ExitCode {
    match command {
        KeyCommand::New { prefix, length } => {
            let random = length.saturating_sub(prefix.len());
            if random < LEAST_RANDOM {
                let least = prefix.len() + LEAST_RANDOM;
                return super::complain(format_args!("--length {length} leaves {random} random characters: use {least} at least"), 2);
            }
            match random_text(random) {
                Ok(text) => {
                    let key = format!("{prefix}{text}");
                    super::print(&format!("key:    {key}\nsha256: {}\n", hash(&key)))
                }
                Err(e) => super::complain(format_args!("no random bytes: {e}"), 1),
            }
        }
        KeyCommand::Hash => {
            let mut line = String::new();
            if let Err(e) = std::io::stdin().lock().read_line(&mut line) {
                return super::complain(format_args!("standard input: {e}"), 1);
            }
            match line.trim_end_matches(['\r', '\n']) {
                "" => super::complain("standard input has no key; write it there, so that it does not stay in the shell's history", 2),
                key => super::print(&format!("{}\n", hash(key))),
            }
        }
    }
}

/// Characters drawn evenly: bytes that would favour some are thrown away.
fn random_text(length: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)?;
        let even = bytes.iter().filter(|byte| usize::from(**byte) < 256 / ALPHABET.len() * ALPHABET.len());
        text.extend(even.take(length - text.len()).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])));
    }
    Ok(text)
}

/// The SHA-256 of a key in hex.
fn hash(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_sha256_that_other_tools_print() {
        assert_eq!(hash("test"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    }

    #[test]
    fn two_keys_differ_and_have_the_length_asked_for() {
        let (one, two) = (random_text(40).unwrap(), random_text(40).unwrap());
        assert_eq!((one.len(), two.len()), (40, 40));
        assert_ne!(one, two);
    }
}
