//! The labels of the example taxonomy, by number. A charter names its taxonomy; unknown labels are refused when we
//! submit and shown as unknown when we receive them.

/// Name of the taxonomy that this release ships.
pub const EXAMPLE: &str = "staydown-example-1";

/// Labels by number, in the order in which people are shown them.
pub const LABELS: [(u32, &str); 14] = [
    (1, "propaganda"),
    (2, "recruitment"),
    (3, "incitement"),
    (4, "instruction"),
    (5, "financing"),
    (6, "graphic-violence"),
    (7, "hostage-taking"),
    (8, "perpetrator-produced"),
    (9, "manifesto"),
    (10, "praise-of-attack"),
    (11, "livestreamed-attack"),
    (12, "credible-threat"),
    (13, "symbol"),
    (99, "other"),
];

/// The name of a label; `label-N` for one that this release does not know.
pub fn name(label: u32) -> String {
    LABELS.iter().find(|(n, _)| *n == label).map_or_else(|| format!("label-{label}"), |(_, name)| (*name).to_owned())
}

/// The number of a label's name.
pub fn number(name: &str) -> Option<u32> {
    LABELS.iter().find(|(_, n)| *n == name).map(|(number, _)| *number)
}
