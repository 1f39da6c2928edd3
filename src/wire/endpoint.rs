//! `host:port`, as people and charters write where a node is found.

/// Longest `host:port`: the longest DNS name, a colon, five digits.
pub const ENDPOINT_SIZE_MAX: usize = 253 + 1 + 5;

/// Whether `text` is `host:port`: a name or address that may be dialled, and a port other than 0.
///
/// # Errors
/// What is expected instead, to be put behind "expected".
pub fn check_endpoint(text: &str) -> Result<(), &'static str> {
    if text.len() > ENDPOINT_SIZE_MAX {
        return Err("host:port of at most 259 characters");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("host:port, as in node.example.org:7700; the port is missing");
    };
    if port.parse::<u16>().unwrap_or(0) == 0 || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err("host:port with a port from 1 to 65535");
    }
    let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let sound = match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if sound { Ok(()) } else { Err("host:port; the host is a name, an IPv4 address, or an IPv6 address in brackets") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_names_or_addresses_with_a_port() {
        for good in ["node.example.org:7700", "127.0.0.1:1", "[::1]:65535", "a_b:2"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in
            ["node", ":1", "a:0", "a:65536", "a:+1", "::1:7700", "[::1:7", "a b:1", "http://a:1", &"x".repeat(300)]
        {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }
}
