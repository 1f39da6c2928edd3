//! The machine under the node, as far as it concerns the node: its files, its disk, its process.
//!
//! What the system does not tell, as on another kernel than Linux, has no sample.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::sheet::{Labels, Sheet, flag, number};
use crate::engine::{JOURNAL_FILE, OUTBOX_FILE, SNAPSHOT_FILE, STORE_FOLDER};
use crate::net::local::LocalService;
use crate::replica::ids::TimeMs;
use crate::store::{room, size_on_disk};

/// Ticks of a second in `/proc`: a constant of Linux towards programs, whatever the kernel's own clock does.
const TICKS_PER_S: f64 = 100.0;

pub(super) fn tell(service: &LocalService, sheet: &mut Sheet) {
    let shared = service.shared();
    files(shared.data(), sheet);
    sheet.gauge(
        "storage_failed",
        "1 after a write failed: nothing more is accepted until the node is restarted.",
        flag(shared.failure().is_some()),
    );
    sheet.gauge(
        "storage_unsound",
        "1 where a block on disk does not hold: restart the node, and it is fetched again.",
        flag(shared.unsound().is_some()),
    );
    process(service, sheet);
}

fn files(folder: &Path, sheet: &mut Sheet) {
    let store = size_on_disk(&folder.join(STORE_FOLDER));
    sheet.gauge("store_size_bytes", "Bytes of the store of all members' blocks.", number(store));
    let size = |name: &str| fs::metadata(folder.join(name)).map_or(0, |file| file.len());
    sheet.gauge("journal_size_bytes", "Bytes of the journal of our own blocks.", number(size(JOURNAL_FILE)));
    sheet.gauge("outbox_size_bytes", "Bytes of the outbox's file.", number(size(OUTBOX_FILE)));
    sheet.gauge("snapshot_size_bytes", "Bytes of the latest snapshot; 0: there is none.", number(size(SNAPSHOT_FILE)));
    let made = fs::metadata(folder.join(SNAPSHOT_FILE)).and_then(|file| file.modified());
    sheet.moment(
        "snapshot_timestamp_seconds",
        "When the latest snapshot was written; none: there is none.",
        made.ok().map(since_1970),
    );
    let room = room(folder).ok();
    let sample = |bytes: Option<u64>| bytes.map(|bytes| (Labels::new(), number(bytes)));
    sheet.gauges(
        "disk_free_bytes",
        "Room that is left on the file system of the data directory.",
        sample(room.map(|room| room.free_bytes)),
    );
    sheet.gauges(
        "disk_size_bytes",
        "Size of the file system of the data directory.",
        sample(room.map(|room| room.total_bytes)),
    );
}

fn since_1970(at: SystemTime) -> TimeMs {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn process(service: &LocalService, sheet: &mut Sheet) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let sample = |value: Option<u64>| value.map(|value| (Labels::new(), number(value)));
    let bytes = |name: &str| field(&status, name).map(|kibibytes| kibibytes.saturating_mul(1_024));
    sheet.gauges("process_resident_memory_bytes", "Memory of the process that is in RAM.", sample(bytes("VmRSS")));
    sheet.gauges("process_virtual_memory_bytes", "Address space of the process.", sample(bytes("VmSize")));
    sheet.gauges("process_threads", "Threads of the process.", sample(field(&status, "Threads")));
    let open = fs::read_dir("/proc/self/fd").map(|open| open.count() as u64);
    sheet.gauges("process_open_fds", "Open file descriptors.", sample(open.ok()));
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    sheet.gauges("process_max_fds", "File descriptors that the process may have.", sample(descriptors_max(&limits)));
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    sheet.seconds_counter("process_cpu_seconds", "Time that the process was computing.", cpu_seconds(&stat));
    let since = service.shared().counters().since();
    sheet.moment("process_start_time_seconds", "When the node was started; all counts begin then.", Some(since));
}

/// The number behind `name:` in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The soft limit in `/proc/self/limits`.
fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time in `/proc/self/stat`. The name of the program stands in brackets, and may have anything in it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(number(ticks(11)?.saturating_add(ticks(12)?)) / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_of_a_process_is_read() {
        let status = "Name:\tstaydown\nVmSize:\t  2048 kB\nVmRSS:\t    1024 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS"), Some(1_024));
        assert_eq!(field(status, "Threads"), Some(7));
        assert_eq!(field(status, "VmSwap"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n";
        assert_eq!(descriptors_max(limits), Some(1_024));
        assert_eq!(descriptors_max("Max open files            unlimited            unlimited            files"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 9 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn this_very_process_is_told_of() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(field(&status, "VmRSS").unwrap() > 0 && field(&status, "Threads").unwrap() > 0);
        assert!(cpu_seconds(&fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }
}
