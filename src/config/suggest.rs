//! Decides which known name somebody may have meant.

/// The known name that is nearest to what was written, if any is near enough to be meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let written = plain(written);
    // Long names are not measured: the work grows with the square.
    if written.len() > 64 {
        return None;
    }
    let most = (written.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|name| name.len() <= 64)
        .map(|name| (distance(&written, &plain(name), most), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `did you mean ...?`, or else all that is known, or nothing where that is too much.
pub fn help<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(written, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let all: Vec<String> = known.into_iter().take(25).map(|name| format!("`{name}`")).collect();
    match all.as_slice() {
        [] => None,
        [only] => Some(format!("there is only {only}")),
        [first @ .., last] if all.len() < 25 => Some(format!("there are {} and {last}", first.join(", "))),
        _ => None,
    }
}

/// How many characters must be changed, put in, taken out or swapped with their neighbour. Above `most` the figure is only a lower bound.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            row[j] = (last[j - 1] + usize::from(a[i - 1] != b[j - 1])).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["upstream", "respond", "rate", "ip_filter", "methods"];
        for (written, meant) in
            [("upstreem", "upstream"), ("raet", "rate"), ("ip-filter", "ip_filter"), ("Methods", "methods"), ("respnd", "respond")]
        {
            assert_eq!(nearest(written, known), Some(meant), "{written}");
        }
    }

    #[test]
    fn another_word_is_not_taken_for_a_slip() {
        for written in ["cache", "x", "", "timeouts", &"u".repeat(10_000)] {
            assert_eq!(nearest(written, ["upstream", "rate"]), None, "{written}");
        }
    }

    #[test]
    fn without_a_near_name_the_known_ones_are_listed() {
        assert_eq!(help("zzz", ["a1", "b1", "c1"]).unwrap(), "there are `a1`, `b1` and `c1`");
        assert_eq!(help("zzz", ["a1"]).unwrap(), "there is only `a1`");
        assert_eq!(help("zzz", []), None);
    }
}
