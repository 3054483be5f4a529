//! Decides when results in a row take an address out and bring it back.

/// How many checks in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub unhealthy_after: u16,
    pub healthy_after: u16,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Up,
    Down,
}

/// From check results to turns; one per address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracker {
    healthy: bool,
    /// Whether any check has been seen: what was never checked is taken to work, but one failure is enough to know better.
    checked: bool,
    /// Results in a row that speak against the present state.
    against: u16,
}

// === impl Tracker ===

impl Default for Tracker {
    fn default() -> Self {
        Tracker { healthy: true, checked: false, against: 0 }
    }
}

impl Tracker {
    /// A state that was found out before.
    pub fn known(healthy: bool) -> Tracker {
        Tracker { healthy, checked: true, against: 0 }
    }

    /// Counts one result. A turn is told once.
    pub fn observe(&mut self, good: bool, thresholds: Thresholds) -> Option<Turn> {
        let first = !std::mem::replace(&mut self.checked, true);
        if good == self.healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = match good {
            true => thresholds.healthy_after,
            false if first => 1,
            false => thresholds.unhealthy_after,
        };
        if self.against < needed {
            return None;
        }
        self.healthy = good;
        self.against = 0;
        Some(if good { Turn::Up } else { Turn::Down })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_AND_THREE: Thresholds = Thresholds { unhealthy_after: 2, healthy_after: 3 };

    fn turns(tracker: &mut Tracker, results: &str) -> String {
        let turn = |good| match tracker.observe(good, TWO_AND_THREE) {
            None => '.',
            Some(Turn::Up) => 'U',
            Some(Turn::Down) => 'D',
        };
        results.chars().map(|c| c == '+').map(turn).collect()
    }

    #[test]
    fn as_many_failures_in_a_row_as_configured_take_it_out_and_successes_bring_it_back() {
        let mut tracker = Tracker::default();
        assert_eq!(turns(&mut tracker, "+-+--++-+++--"), "....D.....U.D");
    }

    #[test]
    fn the_very_first_check_decides_alone() {
        assert_eq!(turns(&mut Tracker::default(), "-+++"), "D..U");
        assert_eq!(turns(&mut Tracker::known(true), "--"), ".D");
    }

    #[test]
    fn a_turn_is_told_once() {
        assert_eq!(turns(&mut Tracker::default(), "+------"), "..D....");
    }
}
