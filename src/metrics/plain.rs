//! `OpenMetrics` as the older text format, which every Prometheus and `promtool check metrics` read: there the type of a
//! counter stands at the name with `_total`, an info is a gauge, and there are no units and no end.

/// The same samples in the older format.
pub(super) fn plain(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ');
        } else if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, kind) = told.split_once(' ').unwrap_or((told, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_are_called_as_their_samples_are() {
        let open = "# HELP s_matches Matches of lookups.\n# TYPE s_matches counter\ns_matches_total 7\n# HELP s_up_seconds Up.\n# TYPE s_up_seconds gauge\n# UNIT s_up_seconds seconds\ns_up_seconds 1.5\n# HELP s_build Build.\n# TYPE s_build info\ns_build_info{v=\"# EOF\"} 1\n# EOF\n";
        let expected = "# HELP s_matches_total Matches of lookups.\n# TYPE s_matches_total counter\ns_matches_total 7\n# HELP s_up_seconds Up.\n# TYPE s_up_seconds gauge\ns_up_seconds 1.5\n# HELP s_build_info Build.\n# TYPE s_build_info gauge\ns_build_info{v=\"# EOF\"} 1\n";
        assert_eq!(plain(open), expected);
    }
}
