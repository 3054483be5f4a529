//! What the kernel knows about this process, under the names that all Prometheus clients use.
//!
//! Decides nothing; what cannot be read is left out.

use std::fs;

use super::family::{self, Samples};

/// Figures of the moment. Memory in bytes, times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: Option<f64>,
    pub resident: Option<f64>,
    pub virtual_size: Option<f64>,
    pub open_fds: Option<f64>,
    pub max_fds: Option<f64>,
    /// Since 1970.
    pub start: Option<f64>,
}

// === impl Process ===

impl Process {
    /// Reads `/proc/self`, proc(5).
    pub fn read() -> Self {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as f64;
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        let in_pages = |at| number(statm.split_ascii_whitespace().nth(at)).map(|pages| pages * page);
        Process {
            cpu_seconds: field(&stat, 14).zip(field(&stat, 15)).map(|(user, system)| (user + system) / ticks),
            virtual_size: in_pages(0),
            resident: in_pages(1),
            // The folder that is read is open itself.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1) as f64),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|most| most as f64),
            start: field(&stat, 22).zip(boot_time(&system)).map(|(since_boot, boot)| boot + since_boot / ticks),
        }
    }

    pub(super) fn put(&self, family: &'static family::Family, samples: &mut Samples) {
        let value = match family.name {
            "process_cpu_seconds_total" => self.cpu_seconds,
            "process_resident_memory_bytes" => self.resident,
            "process_virtual_memory_bytes" => self.virtual_size,
            "process_open_fds" => self.open_fds,
            "process_max_fds" => self.max_fds,
            "process_start_time_seconds" => self.start,
            _ => None,
        };
        if let Some(value) = value {
            samples.put(&[], value);
        }
    }
}

/// A field of `/proc/self/stat`, counted from 1. The second, the program's name, stands in parentheses and may hold anything.
fn field(stat: &str, at: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    number(rest.split_ascii_whitespace().nth(at - 3))
}

fn boot_time(system: &str) -> Option<f64> {
    number(system.lines().find_map(|line| line.strip_prefix("btime ")))
}

fn number(text: Option<&str>) -> Option<f64> {
    text?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_strange_name_is_read_all_the_same() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 1000 200";
        assert_eq!((field(stat, 14), field(stat, 15), field(stat, 22)), (Some(250.0), Some(50.0), Some(12345.0)));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 1\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_has_figures_that_can_be_true() {
        let process = Process::read();
        let before = process.open_fds.unwrap();
        let _open: Vec<_> = (0..10).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(Process::read().open_fds.unwrap() >= 10.0 && before < process.max_fds.unwrap());
        assert!(process.resident.unwrap() > 100_000.0 && process.resident < process.virtual_size);
        assert!(process.cpu_seconds.unwrap() >= 0.0);
        assert!(process.start.unwrap() > 1_500_000_000.0);
    }
}
